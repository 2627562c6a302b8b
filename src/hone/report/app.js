// Draws what the page's JSON holds. Texts of models are only ever set as text, never parsed as markup.
"use strict";

const data = JSON.parse(document.getElementById("data").textContent);

function make(tag, className, text) {
  const element = document.createElement(tag);
  if (className) element.className = className;
  if (text !== undefined) element.textContent = text;
  return element;
}

function colour(name) {
  return getComputedStyle(document.documentElement).getPropertyValue("--" + name).trim();
}

// --- charts

function faded(name, alpha) {
  const hex = colour(name);
  return `rgba(${[1, 3, 5].map((at) => parseInt(hex.slice(at, at + 2), 16)).join(",")},${alpha})`;
}

function traces(chart) {
  const digits = chart.axis === "share" ? ".1%" : ".3~g";
  return chart.curves.flatMap((curve) => {
    const edge = { x: curve.x, mode: "lines", line: { width: 0 }, hoverinfo: "skip" };
    const band = curve.low
      ? [{ ...edge, y: curve.low }, { ...edge, y: curve.high, fill: "tonexty", fillcolor: faded(curve.colour, 0.16) }]
      : [];
    const line = {
      x: curve.x,
      y: curve.y,
      name: curve.name,
      mode: curve.markers || curve.x.length === 1 ? "lines+markers" : "lines",
      line: { color: colour(curve.colour), width: curve.markers ? 2.4 : 1.7 },
      marker: { size: 6, color: colour(curve.colour) },
      hovertemplate: `%{y:${digits}}`,
    };
    if (chart.stacked) Object.assign(line, { stackgroup: "all", fillcolor: faded(curve.colour, 0.45) });
    return [...band, line];
  });
}

function decades(values) {
  const powers = values.filter((value) => value > 0).map(Math.log10);
  const range = [Math.floor(Math.min(...powers)) - 0.05, Math.floor(Math.max(...powers)) + 1.05];
  return { type: "log", dtick: 1, exponentformat: "power", ...(powers.length ? { range } : {}) };
}

function layout(chart) {
  const axis = { gridcolor: colour("line"), zeroline: false, automargin: true, fixedrange: true };
  const x = { ...axis, showgrid: false, title: { text: chart.x_title, standoff: 6, font: { size: 11 } } };
  if (chart.ticks) Object.assign(x, { type: "log", tickvals: chart.ticks, ticktext: chart.ticks.map(String) });
  const y = { ...axis, nticks: 5, rangemode: "tozero", exponentformat: "none" };
  if (chart.axis === "share") y.tickformat = ".1~%";
  if (chart.axis === "log") Object.assign(y, decades(chart.curves.flatMap((curve) => curve.y)));
  return {
    font: { family: getComputedStyle(document.body).fontFamily, size: 11, color: colour("soft") },
    paper_bgcolor: "rgba(0,0,0,0)",
    plot_bgcolor: "rgba(0,0,0,0)",
    margin: { l: 34, r: 10, t: 6, b: 32 },
    showlegend: false,
    hovermode: "x unified",
    hoverlabel: { bgcolor: colour("card"), bordercolor: colour("line"), font: { color: colour("ink") } },
    xaxis: x,
    yaxis: y,
  };
}

function drawCharts(page) {
  for (const chart of data.charts) {
    if (!page.contains(document.getElementById(chart.id))) continue;
    Plotly.react(chart.id, traces(chart), layout(chart), { displayModeBar: false, responsive: true });
  }
}

// --- texts

function textOf(answer) {
  const body = make("div", "body text");
  for (const part of answer.text) {
    const block = make("div", "part " + part.part);
    for (const run of part.runs) {
      block.append(typeof run === "string" ? run : make("mark", run[1], run[0]));
    }
    body.append(block);
  }
  return body;
}

function answerCard(title, answer, extras) {
  const card = make("article", "card " + answer.verdict);
  const head = make("div", "head");
  head.append(make("strong", "", title), ...extras, make("span", "badge " + answer.verdict, answer.verdict));
  const length = `${answer.tokens} tokens` + (answer.finish === "length" ? ", cut at the limit" : "");
  card.append(head, make("div", "why", [answer.why, length].filter(Boolean).join(" · ")));
  return card;
}

function asked(problem) {
  const line = make("p", "asked");
  line.append(make("b", "", problem.question));
  if (problem.reference) line.append(`  · reference: ${problem.reference}`);
  return line;
}

function tabs(labels, choose) {
  const row = make("div", "tabs");
  row.setAttribute("role", "tablist");
  const select = (index) => {
    [...row.children].forEach((tab, i) => tab.setAttribute("aria-selected", String(i === index)));
    choose(index);
  };
  labels.forEach((label, index) => {
    const tab = make("button", "tab");
    tab.type = "button";
    tab.setAttribute("role", "tab");
    tab.append(...label);
    tab.onclick = () => select(index);
    row.append(tab);
  });
  select(0);
  return row;
}

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
