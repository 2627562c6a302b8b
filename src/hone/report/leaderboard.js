// The leaderboard: tables that sort, charts, and the browser of answers. Draws with page.js, which stands before it.

// --- tables

function compare(a, b) {
  const [x, y] = [Number(a), Number(b)];
  return Number.isNaN(x) || Number.isNaN(y) ? a.localeCompare(b, undefined, { numeric: true }) : x - y;
}

function sortBy(header) {
  const table = header.closest("table");
  const column = header.cellIndex;
  const down = header.getAttribute("aria-sort") === "none" ? header.classList.contains("num") : header.getAttribute("aria-sort") === "ascending";
  for (const other of table.querySelectorAll("[aria-sort]")) other.setAttribute("aria-sort", "none");
  header.setAttribute("aria-sort", down ? "descending" : "ascending");
  const valueOf = (row) => row.cells[column].dataset.value ?? "";
  const known = (text) => text !== "" && text !== "None";
  const rows = [...table.tBodies[0].rows].sort((a, b) => {
    const [x, y] = [valueOf(a), valueOf(b)];
    if (known(x) !== known(y)) return known(x) ? -1 : 1; // what is not known stays below
    return down ? compare(y, x) : compare(x, y);
  });
  table.tBodies[0].append(...rows);
}

for (const button of document.querySelectorAll(".sort")) button.onclick = () => sortBy(button.closest("th"));

// --- answers

const MAX_LISTED = 200;
const NAMES = { r: "right", w: "wrong", u: "unscorable" };
const FILTERS = {
  all: () => true,
  right: (codes) => codes.some((found) => /r/i.test(found)),
  wrong: (codes) => codes.some((found) => /w/i.test(found)),
  unscorable: (codes) => codes.some((found) => /u/i.test(found)),
  disagree: disagree,
  truncated: (codes) => codes.some((found) => /[RWU]/.test(found)),
};
const MEANINGS = {
  all: "every problem",
  right: "problems with a right answer",
  wrong: "problems with a wrong answer",
  unscorable: "problems with an answer on which no verdict could be given",
  disagree: "problems that one chosen model mostly solves and another does not; of one model, those it solves at times",
  truncated: "problems with an answer that was cut at the token limit",
};

function share(codes) {
  return (codes.match(/r/gi) ?? []).length / codes.length;
}

function disagree(codes) {
  const asked = codes.filter(Boolean);
  if (asked.length === 1) return share(asked[0]) > 0 && share(asked[0]) < 1;
  return new Set(asked.map((found) => share(found) > 0.5)).size > 1;
}

function matches(output, filter) {
  return filter === "truncated" ? output.truncated : output.verdict === filter;
}

function foldedText(output) {
  const body = make("div", "body text");
  for (const part of output.text) {
    const block = make(part.part === "think" ? "details" : "div", "part " + part.part);
    const words = part.runs.join("").trim();
    if (part.part === "think") block.append(make("summary", "", `thinking, ${words.length.toLocaleString("en")} characters`));
    block.append(words);
    body.append(block);
  }
  if (!output.text.length) body.append(make("div", "part outside soft", "empty"));
  return body;
}

function tally(codes) {
  const counts = Object.entries(NAMES).map(([code, name]) => [codes.toLowerCase().split(code).length - 1, name]);
  const cut = (codes.match(/[A-Z]/g) ?? []).length;
  const words = counts.filter(([count]) => count).map(([count, name]) => `${count} ${name}`);
  return words.concat(cut ? [`${cut} cut`] : []).join(", ");
}

function outputOf(output) {
  const place = make("div");
  const line = make("div", "head");
  line.append(make("span", "badge " + output.verdict, output.verdict));
  if (output.truncated) line.append(make("span", "badge", "cut at the limit"));
  const length = output.tokens === null ? `${output.length.toLocaleString("en")} characters` : `${output.tokens.toLocaleString("en")} tokens`;
  line.append(make("span", "why", length));
  place.append(line);
  if (output.extracted) {
    const answer = make("p", "extracted", "taken as the answer: ");
    answer.append(make("code", "", output.extracted));
    place.append(answer);
  }
  if (output.why) place.append(make("p", "why", output.why));
  place.append(foldedText(output));
  return place;
}

function modelCard(model, problem, filter) {
  const card = make("article", "card");
  const codes = model.verdicts[problem];
  const head = make("div", "head");
  const dot = make("i", "dot");
  dot.style.background = `var(--${model.colour})`;
  const name = make("strong", "", model.label);
  name.prepend(dot);
  head.append(name);
  card.append(head, make("p", "why", codes ? tally(codes) : "was not asked this"));
  const outputs = model.outputs[problem] ?? [];
  if (!outputs.length) return card;
  const shown = make("div");
  const row = tabs(
    outputs.map((output) => [make("i", "mark " + output.verdict), `#${output.index}`]),
    (index) => shown.replaceChildren(outputOf(outputs[index])),
  );
  const first = outputs.findIndex((output) => matches(output, filter));
  if (first > 0) row.children[first].click();
  card.append(row, shown);
  return card;
}

function verdictDots(models, problem) {
  const row = make("span", "shares");
  for (const model of models) {
    const codes = model.verdicts[problem];
    const bar = make("i", codes ? "" : "none");
    bar.title = `${model.label}: ${codes ? tally(codes) : "not asked"}`;
    if (codes) bar.style.setProperty("--right", `${100 * share(codes)}%`);
    row.append(bar);
  }
  return row;
}

function choice(name, options, choose) {
  const label = make("label", "", name);
  const select = make("select");
  for (const option of options) select.append(make("option", "", option));
  select.onchange = () => choose(select.selectedIndex);
  label.append(select);
  return label;
}

function chips(labels, pressed, toggle) {
  const row = make("div", "picks");
  labels.forEach((label, index) => {
    const button = make("button", "pick");
    button.type = "button";
    button.append(...label);
    button.setAttribute("aria-pressed", String(pressed(index)));
    button.onclick = () => {
      toggle(index);
      [...row.children].forEach((other, i) => other.setAttribute("aria-pressed", String(pressed(i))));
    };
    row.append(button);
  });
  return row;
}

function drawAnswers(place, browsers) {
  const state = { browser: browsers[0], models: new Set(), filter: "all", withText: true, problem: null, limit: MAX_LISTED };
  const pickedModels = make("div");
  const filters = make("div");
  const list = make("div", "problems");
  const shown = make("div", "shown");
  const models = () => state.browser.models.filter((_, index) => state.models.has(index));

  const show = () => {
    for (const item of list.children) item.setAttribute("aria-pressed", String(item.dataset.problem === String(state.problem)));
    if (state.problem === null) return shown.replaceChildren(make("p", "empty", "No problem is like that."));
    const text = state.browser.questions[state.problem];
    const question = make("div", "asked");
    question.append(make("span", "story", [state.browser.problems[state.problem], ...(text?.tags ?? [])].join(" · ")));
    question.append(make("div", "question", text ? text.question : "This problem's texts are not in this file; its evaluation folder has them."));
    if (text?.reference) question.append(make("div", "", `reference: ${text.reference}`));
    const cards = make("div", "outputs");
    cards.append(...models().map((model) => modelCard(model, state.problem, state.filter)));
    shown.replaceChildren(question, cards);
  };

  const fill = () => {
    const found = state.browser.problems.map((_, index) => index).filter((index) => {
      if (state.withText && !state.browser.questions[index]) return false;
      return FILTERS[state.filter](models().map((model) => model.verdicts[index]));
    });
    if (!found.includes(state.problem)) state.problem = found[0] ?? null;
    const items = found.slice(0, state.limit).map((index) => {
      const item = make("button", "problem");
      item.type = "button";
      item.dataset.problem = index;
      item.append(make("span", "what", state.browser.questions[index]?.question.slice(0, 90) ?? state.browser.problems[index]));
      item.append(verdictDots(models(), index));
      item.onclick = () => {
        state.problem = index;
        show();
      };
      return item;
    });
    const total = make("p", "why", `${found.length.toLocaleString("en")} of ${state.browser.problems.length.toLocaleString("en")} problems`);
    if (found.length > state.limit) {
      const more = make("button", "tab", `show ${Math.min(MAX_LISTED, found.length - state.limit)} more`);
      more.type = "button";
      more.onclick = () => {
        state.limit += MAX_LISTED;
        fill();
      };
      items.push(more);
    }
    list.replaceChildren(...items);
    count.replaceChildren(total);
    show();
  };

  const count = make("div");
  const restart = () => {
    state.limit = MAX_LISTED;
    list.scrollTop = 0;
    fill();
  };
  const pickModels = () => {
    const labels = state.browser.models.map((model) => {
      const dot = make("i", "dot");
      dot.style.background = `var(--${model.colour})`;
      return [dot, model.label];
    });
    pickedModels.replaceChildren(chips(labels, (index) => state.models.has(index), (index) => {
      if (!state.models.delete(index)) state.models.add(index);
      if (!state.models.size) state.models.add(index);
      restart();
    }));
  };
  const chooseBenchmark = (index) => {
    state.browser = browsers[index];
    state.models = new Set(state.browser.models.map((_, number) => number).slice(0, 3));
    state.problem = null;
    pickModels();
    restart();
  };

  const names = Object.keys(FILTERS);
  const meaning = make("p", "why");
  const sayFilter = () => (meaning.textContent = MEANINGS[state.filter]);
  filters.append(chips(names.map((name) => [name]), (index) => state.filter === names[index], (index) => {
    state.filter = names[index];
    sayFilter();
    restart();
  }));
  sayFilter();
  const withText = make("label", "tick");
  const box = make("input");
  Object.assign(box, { type: "checkbox", checked: true, onchange: () => {
    state.withText = box.checked;
    restart();
  } });
  withText.append(box, "only problems whose texts are here");
  const controls = make("div", "choices");
  if (browsers.length > 1) controls.append(choice("benchmark", browsers.map((browser) => browser.benchmark), chooseBenchmark));
  controls.append(pickedModels, filters, withText);
  const left = make("div", "left");
  left.append(count, list);
  const both = make("div", "both");
  both.append(left, shown);
  place.append(controls, meaning, both);
  chooseBenchmark(0);
}

drawCharts(document);
drawAnswers(document.getElementById("browser"), data.browsers);
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => drawCharts(document));
