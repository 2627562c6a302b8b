// What every page draws with: its charts, and answers as cards. Texts of models are only ever set as text, never parsed as markup.
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

function bars(curve, axis) {
  const [value, low, high] = [curve[axis], curve[axis === "x" ? "low_x" : "low"], curve[axis === "x" ? "high_x" : "high"]];
  if (!low) return { visible: false };
  return {
    type: "data", symmetric: false, thickness: 1.4, width: 4, color: faded(curve.colour, 0.6),
    array: high.map((end, i) => end - value[i]), arrayminus: low.map((end, i) => value[i] - end),
  };
}

function points(chart) {
  return chart.curves.map((curve) => ({
    x: curve.x,
    y: curve.y,
    name: curve.name,
    mode: "markers",
    cliponaxis: false,
    marker: { size: 11, color: colour(curve.colour), symbol: curve.symbol },
    error_x: bars(curve, "x"),
    error_y: bars(curve, "y"),
    hovertemplate: "%{y:.3f} at %{x:,.0f} tokens",
  }));
}

function traces(chart) {
  if (chart.axis === "scatter") return points(chart);
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
      marker: { size: 6, color: colour(curve.colour), symbol: curve.symbol ?? "circle" },
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
  if (chart.axis === "scatter") Object.assign(x, { rangemode: "tozero", showgrid: true, nticks: 6 });
  if (chart.axis === "share") y.tickformat = ".1~%";
  if (chart.axis === "log") Object.assign(y, decades(chart.curves.flatMap((curve) => curve.y)));
  return {
    font: { family: getComputedStyle(document.body).fontFamily, size: 11, color: colour("soft") },
    paper_bgcolor: "rgba(0,0,0,0)",
    plot_bgcolor: "rgba(0,0,0,0)",
    margin: { l: 34, r: 10, t: 6, b: 32 },
    showlegend: false,
    hovermode: chart.axis === "scatter" ? "closest" : "x unified",
    hoverlabel: { bgcolor: colour("card"), bordercolor: colour("line"), font: { color: colour("ink") } },
    xaxis: x,
    yaxis: y,
  };
}

function drawCharts(place) {
  for (const chart of data.charts) {
    if (!place.contains(document.getElementById(chart.id))) continue;
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
