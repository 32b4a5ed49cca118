"""The settings of a run: one YAML, six sections, every field described once.

The description is the help text and the JSON schema's; the default is the one that is right for LoRA on medical text.
Field names are those of transformers, PEFT, TRL and bitsandbytes wherever they have one.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from lora_med.config.data_settings import DataSettings
from lora_med.config.evaluate_settings import FED_BY_SCORES, EvaluateSettings
from lora_med.config.method_rules import refused_combinations, with_method_defaults
from lora_med.config.privacy_settings import PrivacySettings, refused_beside_privacy
from lora_med.config.section import Positive, Section, Share


class ModelSettings(Section):
    base: str = "micro"
    """The base model: a local folder, a Hub id, or `micro`, the one that ships with lora_med."""
    revision: str | None = None
    """The Hub commit, tag or branch; the commit it points to is recorded in the card."""
    load_in_4bit: bool = True
    """Quantize the frozen base to 4 bits (QLoRA); one that bitsandbytes quantized on disk stays as it is."""
    load_in_8bit: bool = False
    """Quantize the frozen base to 8 bits (LLM.int8); set load_in_4bit to false with it."""
    bnb_4bit_quant_type: Literal["nf4", "fp4"] = "nf4"
    """The 4-bit data type; nf4 is made for normally distributed weights."""
    bnb_4bit_use_double_quant: bool = True
    """Quantize the quantization constants too: 0.37 bits a weight saved, no measurable loss."""
    keep_quantized: bool = True
    """Keep the 4-bit weights of a base of 30 million weights or more in the cache folder, to start ten times faster."""
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """Number format of the base's computation; auto takes what the device computes fastest without losing range."""
    chat_template: str | None = None
    """A Jinja file in place of the base's chat template; it is checked first. The adapter carries it, and `generate`,
    `eval`, `merge` and `export` use it."""
    enable_thinking: bool | None = None
    """The thinking switch of the base's chat template, `enable_thinking` or `thinking`; left out, the template
    decides. A template without one is refused."""
    attn_implementation: Literal["auto", "sdpa", "eager", "flash_attention_2"] = "auto"
    """The attention kernel; auto takes one that separates packed documents at linear cost."""

    @model_validator(mode="after")
    def _one_quantization(self) -> ModelSettings:
        if self.load_in_4bit and self.load_in_8bit:
            raise ValueError("load_in_4bit and load_in_8bit cannot both be true; set one of them to false")
        return self

    @property
    def quantization(self) -> Literal["none", "8bit", "4bit"]:
        """`none`, `8bit` or `4bit`, as `load_base` takes it."""
        return "4bit" if self.load_in_4bit else "8bit" if self.load_in_8bit else "none"


class LoraSettings(Section):
    r: Positive = 16
    """Rank of the update matrices."""
    lora_alpha: Annotated[float, Field(gt=0)] = 32
    """Scale of the update: it is multiplied by lora_alpha / r (by lora_alpha / sqrt(r) with use_rslora)."""
    lora_dropout: Annotated[float, Field(ge=0, lt=1)] = 0.05
    """Dropout on the adapters' input while training."""
    target_modules: list[str] | Literal["all-linear"] = "all-linear"
    """Which layers get an adapter; all-linear is every linear layer but the output head."""
    target_experts: bool = False
    """Adapt the routed experts of a mixture too, where all of a layer share one parameter. It takes an adapter as large
    as the number of experts, and lora_dropout 0."""
    rank_pattern: dict[str, int] = Field(default_factory=dict)
    """Another rank for layers whose name matches the regular expression."""
    alpha_pattern: dict[str, float] = Field(default_factory=dict)
    """Another lora_alpha for layers whose name matches the regular expression."""
    layers_to_transform: list[int] | None = None
    """Adapt these layers only, counted from 0."""
    use_rslora: bool = False
    """Scale by 1/sqrt(r), which keeps high ranks stable (Kalajdzievski 2023)."""
    use_dora: bool = False
    """Learn magnitude and direction separately (Liu et al. 2024); slower, at times better at low ranks."""
    init_lora_weights: Literal["default", "gaussian", "pissa", "olora", "loftq", "eva"] = "default"
    """Start of the adapters; default starts as the base itself (B is zero)."""
    continue_from: str | None = None
    """Name of an adapter in the store to train further; its base and shape must match."""
    task_type: Literal["CAUSAL_LM", "TOKEN_CLS"] = "CAUSAL_LM"
    """CAUSAL_LM writes text. TOKEN_CLS tags tokens: the base gets a head for the entity types of the training data."""
    head_dropout: Annotated[float, Field(ge=0, lt=1)] = 0.1
    """With TOKEN_CLS: dropout on the input of the head while training; lora_dropout does not reach it."""
    trainable_tokens: list[str] = Field(default_factory=list)
    """Tokens whose own rows are trained too, such as `["<note>"]`. A new one is added to a copy of the tokenizer, and a
    text that contains it is tokenized with it. One that the base has is trained as it is. The adapter holds these rows
    alone, and whatever uses the adapter uses its tokenizer."""

    @field_validator("trainable_tokens")
    @classmethod
    def _tokens_are_words(cls, tokens: list[str]) -> list[str]:
        for number, token in enumerate(tokens):
            if not token.strip():
                raise ValueError(f"token {number + 1} is {token!r}: a token needs a visible character, as <note>")
            if token != token.strip() or not token.isprintable():
                raise ValueError(
                    f"token {token!r} begins or ends with white space, or has a character that is not shown"
                )
            if token in tokens[:number]:
                raise ValueError(f"token {token!r} is named twice")
        return tokens

    @model_validator(mode="before")
    @classmethod
    def _no_dropout_on_experts(cls, values: Any) -> Any:
        """Without a value, lora_dropout is 0 where PEFT has none."""
        if isinstance(values, dict) and str(values.get("target_experts")).lower() == "true":
            return {"lora_dropout": 0.0, **values}
        return values

    @model_validator(mode="after")
    def _experts_are_plain_lora(self) -> LoraSettings:
        """PEFT adapts a parameter by plain LoRA alone."""
        wrong = {
            f"lora_dropout {self.lora_dropout:g} (leave it out, or set 0)": self.lora_dropout > 0,
            "use_dora (set it to false)": self.use_dora,
            f"init_lora_weights {self.init_lora_weights} (take default or gaussian)": self.init_lora_weights
            not in ("default", "gaussian"),
            "task_type TOKEN_CLS (set target_experts to false)": self.task_type == "TOKEN_CLS",
        }
        named = [what for what, is_set in wrong.items() if is_set]
        if self.target_experts and named:
            raise ValueError(f"PEFT cannot combine target_experts with {', or with '.join(named)}")
        return self


class TrainSettings(Section):
    output_dir: str = "runs/default"
    """Folder for checkpoints, metrics and run.json; one run at a time may write there."""
    num_train_epochs: Annotated[float, Field(gt=0)] = 3
    """Passes over the training split; max_steps wins over it."""
    max_steps: int = -1
    """Optimizer steps; -1 lets num_train_epochs decide. A streamed corpus needs it."""
    method: Literal["sft", "dpo"] = "sft"
    """sft learns to write the completions. dpo learns to prefer the chosen answer of each pair to the rejected one
    (docs/preferences.md); with it learning_rate is 2e-5 and lora_dropout 0 where they are left out."""
    beta: Annotated[float, Field(gt=0)] = 0.1
    """With method dpo: how strongly the adapter is held to its reference; smaller lets it go further."""
    per_device_train_batch_size: Positive = 4
    """Rows a device takes at once; with packing, rows of max_length tokens."""
    per_device_eval_batch_size: Positive = 8
    """Rows a device takes at once while evaluating."""
    gradient_accumulation_steps: Positive = 1
    """Batches summed into one optimizer step."""
    batch: Literal["as_set", "auto"] = "as_set"
    """auto takes the rows of a step (batch size times accumulation) in as few batches as memory allows. It recomputes
    activations only if it must. The steps are the same."""
    learning_rate: Annotated[float, Field(gt=0)] = 2e-4
    """Peak learning rate; ten times that of full fine-tuning, as the adapters start at zero."""
    lr_scheduler_type: str = "cosine"
    """Shape of the learning rate over the run, by its name in transformers."""
    warmup_ratio: Share = 0.03
    """Share of the steps over which the learning rate climbs to its peak."""
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    """Decay of the adapter weights (AdamW)."""
    max_grad_norm: Annotated[float, Field(gt=0)] = 1.0
    """Gradients are scaled down to this norm."""
    max_length: Positive = 1024
    """Longest row, in tokens; too_long sets what is done with a longer one."""
    assistant_turns: Literal["last", "all"] = "last"
    """Which of the assistant's turns in a conversation are trained; the tokens of the row are the same."""
    packing: bool = False
    """Fill rows of max_length with several documents that cannot see each other."""
    share_context: bool = False
    """Train rows that begin alike, such as questions about one abstract, as one row that holds their beginning once."""
    cache_frozen: bool = False
    """With adapters on the upper layers only: cache the output of the layers below for each row, in memory, from the
    first epoch on. Results are the same up to rounding; those of a resumed run too."""
    gradient_checkpointing: bool = False
    """Recompute activations to save memory, at a third more time."""
    seed: int = 42
    """Seed of initialization, dropout and order."""
    logging_steps: Positive = 10
    """Steps between two lines of metrics.jsonl."""
    eval_steps: Positive | None = None
    """Steps between two validations; left out, once at the end of each epoch."""
    save_steps: Positive | None = None
    """Steps between two checkpoints; left out, as eval_steps."""
    save_total_limit: Positive = 2
    """Checkpoints to keep, besides the best."""
    early_stopping_patience: Positive | None = None
    """Stop after this many validations without a better metric; left out, never."""
    metric_for_best_model: str = "eval_loss"
    """The validation metric that chooses the published adapter."""
    too_long: Literal["error", "drop", "trim_context", "chunk_by_section"] | None = None
    """What to do with a row longer than max_length: refuse it, leave it out, shorten its context from the end, or cut
    running text where a section begins. Without a value running text is cut, and all else is refused. No answer is
    ever cut. After the first 1,000 rows of a stream, a row that would be refused is left out and logged."""
    allow_rows_dropped: Share = 0.0
    """With too_long error: largest share of rows that may be left out for their length; above it preflight refuses."""
    resume: Literal["auto", "never"] = "auto"
    """auto continues from the newest complete checkpoint of the same run; never refuses an output_dir that has one."""
    peer_timeout: Annotated[float, Field(gt=0)] = 600
    """With several processes: seconds that one waits for another that does not go on, before all end and can resume.
    A process that is reading its data is waited for as long as it takes. After 30 seconds the log names it."""
    keep_tokenized: bool | None = None
    """Keep the tokenized rows in output_dir, so that a second run on the same data starts at once. Left out, they are
    kept unless the data are credentialed: whoever has the tokenizer reads the full text from them. Where they are not
    kept, they are deleted when the run ends, and so are those of an earlier run in output_dir. Of a streamed source
    they are token shards, written while the run reads its files."""
    tokenized_disk_gb: Annotated[float, Field(ge=0)] = 100.0
    """Most gigabytes of token shards of a streamed source in output_dir. What does not fit is tokenized again at each
    pass. A corpus takes about 5 bytes a token; all of PubMed about 80 GB."""
    privacy: PrivacySettings | None = None
    """Train with differential privacy, so that no patient can change the adapter much; left out, without. It takes the
    extra `privacy`, and docs/privacy.md says what it promises."""
    report_to: Literal["none", "trackio", "tensorboard"] = "none"
    """A tracker beside metrics.jsonl; nothing leaves the machine by default."""
    trainer_args: dict[str, Any] = Field(default_factory=dict)
    """Any other field of TRL's SFTConfig, passed through; the names are checked."""


class AdapterSettings(Section):
    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,63}$")] = "adapter"
    """Name in the store: lower-case letters, digits, `_` and `-`, at most 64."""
    store: str = "adapters"
    """The folder that holds the adapters."""
    description: str = ""
    """One line for the card: what the adapter is for."""
    overwrite: bool = False
    """Replace an adapter of the same name; otherwise that is an error, found before training."""
    publish_worse: bool = False
    """Publish the adapter even if, on validation, it is worse than what its training began from."""
    access: Literal["open", "registered", "credentialed"] | None = None
    """Access class of your own data: who may read it. A catalog source brings its own, and the strictest wins. `custom`
    and the formats of corpora (conll, bioc, brat) have none until it is stated here, and no run trains on data without
    one."""
    license: str | None = None
    """License of your own data, for the card; a catalog source brings its own."""


class Settings(Section):
    """All settings of a run."""

    offline: bool = True
    """Never ask the network: models and data come from disk. Set false to load from the Hub."""
    model: ModelSettings = ModelSettings()
    data: DataSettings = DataSettings()
    lora: LoraSettings = LoraSettings()
    train: TrainSettings = TrainSettings()
    adapter: AdapterSettings = AdapterSettings()
    evaluate: EvaluateSettings = EvaluateSettings()

    @model_validator(mode="before")
    @classmethod
    def _defaults_of_method(cls, values: Any) -> Any:
        return with_method_defaults(values)

    @model_validator(mode="after")
    def _method_can_be_combined(self) -> Settings:
        refused = refused_combinations(self)
        if refused:
            raise ValueError(f"train.method {self.train.method} cannot be combined with {'; nor with '.join(refused)}")
        return self

    @model_validator(mode="after")
    def _privacy_can_be_combined(self) -> Settings:
        refused = refused_beside_privacy(self)
        if refused:
            raise ValueError(f"train.privacy cannot be combined with {'; nor with '.join(refused)}")
        return self

    @model_validator(mode="after")
    def _schedule_has_its_loss(self) -> Settings:
        schedule = self.train.lr_scheduler_type
        if self.evaluate.chooses and schedule in FED_BY_SCORES:
            raise ValueError(
                f"train.lr_scheduler_type {schedule} follows the metric that chooses the adapter, which would come at "
                "other steps: set evaluate.load_best_model_at_end to false, or take another schedule"
            )
        return self
