// One key chooses one answer; the page works without this file. Keys typed into a field remain text.
"use strict";
document.addEventListener("keydown", (event) => {
  const target = event.target;
  const isTyping = target.matches("textarea, select, input:not([type=radio])");
  if (isTyping || event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.key === "Enter" && !target.matches("a, button, summary")) {
    event.preventDefault();
    document.querySelector("form").requestSubmit();
    return;
  }
  const choice = document.querySelector(`input[data-key="${CSS.escape(event.key.toLowerCase())}"]`);
  if (choice) {
    event.preventDefault();
    choice.checked = true;
    choice.focus();
  }
});
