"""python -m lora_med"""

from lora_med.cli.main import main

if __name__ == "__main__":
    main()
