// Shows the answers as they come; without this file the form gives a complete page. Text is only ever set as text.
"use strict";
(() => {
  const form = document.querySelector("form.playground");
  const answers = document.getElementById("answers");
  const progress = document.getElementById("progress");
  const problem = document.getElementById("problem");
  const stop = document.getElementById("stop");
  let asking = null;

  const add = (parent, name, className, text) => {
    const element = document.createElement(name);
    if (className) element.className = className;
    element.textContent = text;
    parent.append(element);
    return element;
  };

  const begin = (names) => {
    answers.replaceChildren();
    return names.map((name, number) => {
      const side = add(answers, "div", "", "");
      add(side, "h2", "", name).id = `answer-${number}`;
      const text = add(side, "div", "text", "");
      text.tabIndex = 0;
      text.setAttribute("role", "region");
      text.setAttribute("aria-labelledby", `answer-${number}`);
      return { side, text };
    });
  };

  const refuse = (sentence) => {
    problem.textContent = sentence;
    problem.hidden = !sentence;
  };

  const read = async (response, show) => {
    const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
    let rest = "";
    for (;;) {
      const { value, done } = await reader.read();
      if (done) return;
      const events = (rest + value).split("\n\n");
      rest = events.pop();
      events.forEach((event) => show(JSON.parse(event.slice("data: ".length))));
    }
  };

  const ask = async () => {
    if (asking) asking.abort();
    const mine = (asking = new AbortController());
    let sides = [];
    let ended = 0;
    refuse("");
    stop.hidden = false;
    progress.textContent = "The answers are being written.";
    try {
      const body = new URLSearchParams(new FormData(form));
      const response = await fetch("/playground/stream", { method: "POST", body, signal: mine.signal });
      await read(response, (event) => {
        if (event.subjects) {
          sides = begin(event.subjects);
        } else if (event.subject === undefined) {
          refuse(event.problem);
        } else {
          const { side, text } = sides[event.subject];
          if (event.text) text.append(event.text);
          if (event.problem) add(side, "p", "problem", event.problem);
          if (event.end) add(side, "p", "note", event.end);
          if (event.problem || event.end) ended += 1;
        }
      });
      if (mine === asking) progress.textContent = sides.length ? `${ended} of ${sides.length} answers are complete.` : "";
    } catch (error) {
      if (mine !== asking) return;
      progress.textContent = error.name === "AbortError" ? "Stopped." : "";
      if (error.name !== "AbortError") refuse("The page lost its server: start the command again.");
    } finally {
      if (mine === asking) stop.hidden = true;
    }
  };

  form.addEventListener("submit", (event) => {
    event.preventDefault();
    ask();
  });
  stop.addEventListener("click", () => asking.abort());
})();
