// The page of a run: answers side by side, training groups, the stage graph. Draws with page.js, which stands before it.

// --- the same problem in every column

function drawStrip(place, strip) {
  const shown = make("div");
  const labels = strip.problems.map((problem) => {
    const path = make("span", "path");
    path.append(...problem.answers.filter(Boolean).map((answer) => make("i", answer.verdict)));
    return [problem.question.slice(0, 60), make("span", "story", problem.story), path];
  });
  const choose = (index) => {
    const problem = strip.problems[index];
    const cards = make("div", "cards");
    problem.answers.forEach((answer, i) => {
      if (!answer) return;
      const card = answerCard(strip.columns[i], answer, []);
      card.append(textOf(answer));
      cards.append(card);
    });
    shown.replaceChildren(asked(problem), cards);
  };
  place.append(tabs(labels, choose), shown);
}

// --- training groups

function short(value) {
  return value === null ? "–" : String(Number(value.toFixed(3)));
}

function advantageOf(output, largest) {
  const value = output.advantage;
  const badge = make("span", "adv", value === null ? "no advantage" : `advantage ${value > 0 ? "+" : ""}${value.toFixed(2)}`);
  if (value) {
    badge.classList.add(value > 0 ? "up" : "down");
    badge.style.setProperty("--much", `${12 + 45 * Math.abs(value) / largest}%`);
  }
  return badge;
}

function outputCard(output, index, largest) {
  if (output.rejected !== undefined) {
    const kept = make("span", "badge " + (output.rejected ? "" : "right"), output.rejected ? `left out: ${output.rejected}` : "kept");
    const card = answerCard(`#${index + 1}`, output, [kept]);
    card.append(textOf(output));
    return card;
  }
  const card = answerCard(`#${index + 1}`, output, [advantageOf(output, largest)]);
  const parts = Object.entries(output.parts).map(([name, value]) => `${name} ${short(value)}`);
  card.append(make("div", "why", `reward ${short(output.reward)}` + (parts.length ? ` = ${parts.join(" + ")}` : "")));
  card.append(textOf(output));
  return card;
}

function drawGroup(place, group) {
  const largest = Math.max(...group.outputs.map((output) => Math.abs(output.advantage ?? 0))) || 1;
  const outputs = make("div", "outputs");
  outputs.append(...group.outputs.map((output, index) => outputCard(output, index, largest)));
  place.replaceChildren(asked(group), outputs);
}

function drawBrowser(place, stage) {
  const slider = make("input");
  const last = stage.steps.length - 1;
  Object.assign(slider, { type: "range", min: 0, max: last, value: stage.unit === "step" ? last : 0 });
  const name = make("output");
  const label = make("label");
  label.append(name, slider);
  const controls = make("div", "controls");
  controls.append(label);
  const shown = make("div");
  const show = () => {
    const { step, groups } = stage.steps[Number(slider.value)];
    name.textContent = `${stage.unit} ${step}`;
    const group = make("div");
    const labels = groups.map(({ question, outputs }) => {
      const right = outputs.filter((output) => output.verdict === "right").length;
      return [question.slice(0, 60), make("span", "story", `${right} of ${outputs.length} right`)];
    });
    shown.replaceChildren(tabs(labels, (index) => drawGroup(group, groups[index])), group);
  };
  slider.oninput = show;
  place.append(controls, shown);
  show();
}

// --- the stage graph: the box under the pointer shows what it reads and who reads it

for (const box of document.querySelectorAll(".graph .box")) {
  const graph = box.ownerSVGElement;
  const edges = [...graph.querySelectorAll(".edge")].filter((edge) => edge.dataset.names.split(" ").includes(box.dataset.name));
  const light = (on) => {
    graph.classList.toggle("lit", on);
    for (const edge of edges) edge.classList.toggle("near", on);
  };
  for (const [event, on] of [["pointerenter", true], ["pointerleave", false], ["focus", true], ["blur", false]]) {
    box.addEventListener(event, () => light(on));
  }
}

// --- pages: the overview and one for each stage, chosen by the address's hash; each is drawn when it is first shown

const pages = [...document.querySelectorAll(".page")];
let shownPage = null;
let leftOverviewAt = 0;

function drawPage(page) {
  if (!page.dataset.drawn) {
    page.dataset.drawn = "yes";
    for (const place of page.querySelectorAll(".strip")) drawStrip(place, data.strips[place.dataset.stage]);
    for (const place of page.querySelectorAll(".browser")) drawBrowser(place, data.groups[place.dataset.stage]);
  }
  drawCharts(page);
}

function showPage() {
  const target = document.getElementById(decodeURIComponent(location.hash.slice(1)));
  const page = target?.closest(".page") ?? pages[0];
  const changed = page !== shownPage;
  if (changed) {
    if (shownPage === pages[0]) leftOverviewAt = scrollY;
    for (const other of pages) other.classList.toggle("shown", other === page);
    shownPage = page;
    drawPage(page);
  }
  if (target && target !== page) target.scrollIntoView();
  else if (changed) scrollTo({ top: page === pages[0] ? leftOverviewAt : 0, behavior: "instant" });
}

history.scrollRestoration = "manual";
addEventListener("hashchange", showPage);
showPage();
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => drawCharts(shownPage));
