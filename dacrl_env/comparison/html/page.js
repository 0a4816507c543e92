// Draws the figures of a page from the data in it, and lets its parts be clicked.
"use strict";

(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const shown = data.policies.map(() => true);
  const withRuns = data.policies.map(() => data.figures.some((one) => one.showRuns));
  const dark = window.matchMedia("(prefers-color-scheme: dark)");
  const touch = window.matchMedia("(pointer: coarse)");
  const symbols = ["triangle-down", "triangle-up", "square"];
  const edge = 0.1; // between the bands of policies, as a share of their height

  // Plotly takes <b>, <a> and entities in its texts for markup; nothing here is any
  const plain = (text) =>
    String(text).replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;");
  const labels = data.policies.map((policy) => policy.label.map(plain).join("<br>"));
  const label = (policy) => labels[policy];
  const format = new Intl.NumberFormat("en-US", { maximumFractionDigits: 3 });
  const count = (value) => format.format(value);
  const short = (value) => (value === null ? "–" : String(value));
  const css = (name) =>
    getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  const colour = (policy) => {
    const own = data.policies[policy].colour;
    return own === "#000000" ? css("--first") : own; // black is not seen on black
  };
  const faint = (hex, alpha) => {
    const part = (from) => parseInt(hex.slice(from, from + 2), 16);
    return `rgba(${part(1)},${part(3)},${part(5)},${alpha})`;
  };
  const dash = (policy) =>
    data.policies[policy].dashes.split(" ").map((n) => `${n}px`).join(",");
  const line = (policy, width) => ({
    color: colour(policy),
    width,
    dash: data.policies[policy].dashes ? dash(policy) : "solid",
  });

  // -- curves, one panel below the other ------------------------------------------

  const axis = (panel) => (panel === 0 ? "y" : `y${panel + 1}`);
  const at = (figure, x) => `${plain(figure.x.title)}: ${count(x)}`;

  function curveTraces(figure, curve) {
    const x = figure.grids[curve.grid];
    const base = {
      x, yaxis: axis(curve.panel), mode: "lines", meta: { policy: curve.policy },
    };
    const shape = curve.shape;
    const alpha = Math.min(0.16, 0.8 / data.policies.length);
    const band = {
      ...base, hoverinfo: "skip", line: { width: 0, shape },
      fillcolor: faint(colour(curve.policy), alpha),
    };
    const text = x.map((at_, k) => {
      const between = curve.low
        ? ` [${short(curve.low[k])}, ${short(curve.high[k])}]`
        : "";
      return `${label(curve.policy)}<br>${at(figure, at_)}<br>` +
        `${plain(figure.panels[curve.panel].title)}: ${short(curve.y[k])}${between}`;
    });
    const middle = {
      ...base, y: curve.y, text, hoverinfo: "text",
      line: { ...line(curve.policy, 2), shape },
      meta: { policy: curve.policy, part: "middle", panel: curve.panel },
    };
    if (!curve.low) return [middle];
    return [
      { ...band, y: curve.low },
      { ...band, y: curve.high, fill: "tonexty" },
      middle,
    ];
  }

  // A band for each policy, divided by the share of runs with each option.
  function shareTraces(figure, part) {
    const x = figure.grids[part.grid];
    const about = { yaxis: axis(part.panel), meta: { policy: part.policy } };
    const height = 1 - 2 * edge;
    const bottom = x.map(() => part.policy + edge);
    const traces = part.shares.map((share, k) => {
      const grey = Math.round(255 * (0.9 - (0.7 * k) / Math.max(part.shares.length - 1, 1)));
      const above = { x: [], y: [] };
      const below = { x: [], y: [] };
      for (let i = 1; i < x.length; i += 1) { // a value holds up to its step
        const low = bottom[i];
        bottom[i] = low + height * (share[i] ?? 0);
        above.x.push(x[i - 1], x[i]);
        above.y.push(bottom[i], bottom[i]);
        below.x.push(x[i - 1], x[i]);
        below.y.push(low, low);
      }
      return {
        ...about, mode: "lines", fill: "toself", hoverinfo: "skip",
        x: above.x.concat(below.x.reverse()), y: above.y.concat(below.y.reverse()),
        line: { width: 0 }, fillcolor: `rgb(${grey},${grey},${grey})`,
      };
    });
    const text = x.map((at_, i) =>
      [
        label(part.policy), at(figure, at_),
        ...part.options.map((option, k) =>
          `${plain(option)}: ${Math.round(100 * (part.shares[k][i] ?? 0))} % of runs`),
      ].join("<br>"));
    const middle = x.map(() => part.policy + 0.5);
    return [
      ...traces,
      {
        ...about, x, y: middle, mode: "markers", text, hoverinfo: "text",
        marker: { opacity: 0, size: 14, color: colour(part.policy) },
      },
      {
        ...about, x: [0, 0], y: [part.policy + edge, part.policy + 1 - edge],
        mode: "lines", hoverinfo: "skip", line: { color: colour(part.policy), width: 5 },
      },
    ];
  }

  // Marks where an event happened, the larger the more runs it did in.
  function eventTraces(figure, part) {
    return [{
      x: part.at, y: part.at.map(() => part.policy + 0.5), yaxis: axis(part.panel),
      mode: "markers", hoverinfo: "text", meta: { policy: part.policy },
      text: part.at.map((at_, i) =>
        `${label(part.policy)}<br>${at(figure, at_)}<br>${plain(part.option)}: ` +
        `${Math.round(100 * part.share[i])} % of runs`),
      marker: {
        color: colour(part.policy), symbol: symbols[part.number % symbols.length],
        size: part.share.map((share) => 4 + 7 * Math.sqrt(share)),
      },
    }];
  }

  // All single runs of a policy in one panel: one line with gaps in it.
  function runTrace(figure, part) {
    const x = [], y = [], text = [];
    const title = plain(figure.panels[part.panel].title);
    const places = new Map(); // texts of steps, which runs share
    part.series.forEach((series, k) => {
      if (series === null) return;
      const about = `${label(part.policy)}<br>${plain(figure.runNames[part.policy][k])}`;
      const grid = figure.grids[series[0]], values = figure.values[series[1]];
      if (!places.has(grid)) places.set(grid, grid.map((at_) => at(figure, at_)));
      const steps = places.get(grid);
      grid.forEach((at_, i) => {
        x.push(at_);
        y.push(values[i]);
        text.push(`${about}<br>${steps[i]}<br>${title}: ${short(values[i])}`);
      });
      x.push(null);
      y.push(null);
      text.push("");
    });
    const alpha = part.series.length > 40 ? 0.35 : 0.55;
    return {
      x, y, text, hoverinfo: "text", mode: "lines", yaxis: axis(part.panel),
      line: { color: faint(colour(part.policy), alpha), width: 1, shape: part.shape },
      meta: { policy: part.policy, part: "runs", panel: part.panel },
    };
  }

  function curvesLayout(figure) {
    const title = 26, between = 12, below = 44;
    const heights = figure.panels.map((panel) => panel.height + title);
    const inner = heights.reduce((sum, height) => sum + height + between, -between);
    const grid = { gridcolor: css("--line"), zerolinecolor: css("--line"), linecolor: css("--line") };
    const layout = {
      height: inner + below + 4,
      margin: { l: 52, r: 12, t: 4, b: below, pad: 2 },
      font: { color: css("--ink"), size: 12, family: "system-ui, sans-serif" },
      paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)",
      showlegend: false, hovermode: "closest", hoverdistance: 40,
      hoverlabel: {
        bgcolor: css("--shade"), bordercolor: css("--line"), align: "left",
        font: { color: css("--ink"), size: 12 },
      },
      modebar: { bgcolor: "rgba(0,0,0,0)", color: css("--faint"), activecolor: css("--mark") },
      dragmode: touch.matches ? false : "zoom",
      xaxis: {
        ...grid, title: { text: plain(figure.x.title), standoff: 8 }, nticks: 7,
        anchor: axis(figure.panels.length - 1), range: figure.x.range,
        type: figure.x.log ? "log" : "linear", zeroline: false,
      },
      annotations: [], shapes: [],
    };
    let top = 0;
    figure.panels.forEach((panel, k) => {
      const end = 1 - (top + title) / inner;
      layout[k === 0 ? "yaxis" : `yaxis${k + 1}`] = {
        ...grid, domain: [Math.max(0, end - panel.height / inner), end],
        type: panel.log ? "log" : "linear", ...(panel.log ? { dtick: 1 } : { nticks: 5 }), zeroline: false,
        showticklabels: !panel.places, showgrid: !panel.places,
        exponentformat: "power", automargin: false, tickfont: { size: 11 },
        ...(panel.places ? { range: [panel.places, 0], fixedrange: true } : {}),
        ...(panel.range ? { range: panel.range } : {}),
      };
      layout.annotations.push({
        text: plain(panel.title), showarrow: false, xref: "paper", x: 0,
        xanchor: "left", yref: "paper", y: end, yanchor: "bottom", font: { size: 12 },
      });
      (panel.lines ?? []).forEach((y) => layout.shapes.push({
        type: "line", xref: "paper", x0: 0, x1: 1, yref: axis(k), y0: y, y1: y,
        line: { color: css("--faint"), width: 1, dash: "dot" }, layer: "below",
      }));
      (panel.marks ?? []).forEach((x) => layout.shapes.push({
        type: "line", xref: "x", x0: x, x1: x, yref: `${axis(k)} domain`,
        y0: 0, y1: 1, line: { color: css("--faint"), width: 1, dash: "dot" }, layer: "below",
      }));
      top += heights[k] + between;
    });
    return layout;
  }

  const config = {
    responsive: true, displaylogo: false,
    showSendToCloud: false, plotlyServerURL: "", // figures go to nobody
    displayModeBar: window.innerWidth < 600 ? false : "hover",
    modeBarButtonsToRemove: ["select2d", "lasso2d", "autoScale2d"],
  };

  function drawCurves(place, figure) {
    const traces = [
      ...(figure.shares ?? []).flatMap((part) => shareTraces(figure, part)),
      ...figure.curves.flatMap((curve) => curveTraces(figure, curve)),
      ...(figure.events ?? []).flatMap((part) => eventTraces(figure, part)),
      // lines of runs are made when they are first asked for
      ...(figure.runs ?? [])
        .filter((part) => withRuns[part.policy])
        .map((part) => runTrace(figure, part)),
    ];
    traces.forEach((trace) => { trace.visible = shown[trace.meta.policy]; });
    return Plotly.react(place, traces, curvesLayout(figure), config);
  }

  // -- values with their intervals, a small panel for each -----------------------------

  function drawForest(place, figure) {
    place.classList.add("forest");
    while (place.children.length < figure.panels.length) {
      place.append(document.createElement("div"));
    }
    return Promise.all(figure.panels.map((panel, k) => {
      const rows = panel.rows.filter((row) => shown[row.policy]);
      const traces = rows.map((row, place_) => {
        const known = row.low !== null;
        return {
          x: [row.value], y: [place_], mode: "markers", hoverinfo: "text",
          marker: { color: colour(row.policy), size: 8 },
          error_x: {
            type: "data", symmetric: false, array: [known ? row.high - row.value : 0],
            arrayminus: [known ? row.value - row.low : 0], color: colour(row.policy),
            thickness: 2, width: 4, visible: known,
          },
          text: [`${label(row.policy)}<br>${plain(panel.title)}: ${short(row.value)}` +
            (known ? ` [${short(row.low)}, ${short(row.high)}]` : "")],
          meta: { policy: row.policy },
        };
      });
      const layout = {
        ...curvesLayout({ x: { title: panel.better }, panels: [{ title: panel.title, height: 40 + 20 * rows.length }] }),
        dragmode: false,
      };
      layout.xaxis.nticks = 5;
      Object.assign(layout.margin, { l: 12 });
      Object.assign(layout.yaxis, {
        range: [rows.length - 0.4, -0.6], showticklabels: false, showgrid: false,
        fixedrange: true,
      });
      if (panel.line !== null) {
        layout.shapes.push({
          type: "line", xref: "x", x0: panel.line, x1: panel.line, yref: "paper",
          y0: 0, y1: layout.yaxis.domain[1], line: { color: css("--faint"), width: 1, dash: "dot" },
        });
      }
      return Plotly.react(place.children[k], traces, layout, { ...config, displayModeBar: false });
    }));
  }

  // -- points: what was tried, and the front that nothing dominates ----------------------

  function drawPoints(place, figure) {
    place.classList.add("forest");
    while (place.children.length < figure.panels.length) {
      place.append(document.createElement("div"));
    }
    return Promise.all(figure.panels.map((panel, k) => {
      const tell = (x, y) => `${plain(panel.title)}: ${short(y)}<br>` +
        `${plain(panel.x.title)}: ${short(x)}`;
      const texts = (part, about) => part.x.map((x, i) => `${about(i)}<br>${tell(x, part.y[i])}`);
      const { front, runs } = panel;
      const traces = [
        {
          ...runs, mode: "markers", hoverinfo: "text", text: texts(runs, () => "a run"),
          marker: { color: css("--faint"), size: 4, opacity: 0.5 }, meta: { policy: 0, part: "tried" },
        },
        {
          x: front.x, y: front.y, hoverinfo: "text",
          mode: panel.line === null ? "markers+text" : "lines+markers+text",
          text: front.names, textposition: "top left", textfont: { size: 11 },
          hovertext: texts(front, (i) => `${plain(front.names[i])} of the front`),
          marker: { color: css("--mark"), size: 8 },
          line: { color: css("--mark"), width: 2, shape: panel.line ?? "linear" },
          meta: { policy: 0, part: "front" },
        },
      ];
      const layout = {
        ...curvesLayout({ x: panel.x, panels: [{ title: panel.title, height: 300 }] }),
      };
      Object.assign(layout.xaxis, { exponentformat: "SI", nticks: 5, tickangle: 0, ...(panel.x.log ? { dtick: 1 } : {}) });
      return Plotly.react(place.children[k], traces, layout, config);
    }));
  }

  // -- the page ------------------------------------------------------------------------

  function draw() {
    document.querySelectorAll(".figure").forEach((place) => {
      const figure = data.figures[Number(place.dataset.figure)];
      const drawn = { forest: drawForest, points: drawPoints };
      (drawn[figure.kind] ?? drawCurves)(place, figure);
    });
    document.querySelectorAll(".entry").forEach((entry) => {
      const policy = Number(entry.dataset.policy);
      entry.querySelector(".policy").setAttribute("aria-pressed", String(shown[policy]));
      entry.querySelector(".runs").setAttribute("aria-pressed", String(withRuns[policy]));
    });
    document.querySelectorAll(".all-runs").forEach((button) => {
      button.setAttribute("aria-pressed", String(known.every((policy) => withRuns[policy])));
    });
  }

  const known = [...new Set(
    data.figures.flatMap((figure) => (figure.runs ?? []).map((part) => part.policy)),
  )]; // policies whose single runs are there

  document.querySelectorAll(".entry").forEach((entry) => {
    const policy = Number(entry.dataset.policy);
    entry.querySelector(".policy").addEventListener("click", () => {
      shown[policy] = !shown[policy];
      draw();
    });
    const runs = entry.querySelector(".runs");
    runs.hidden = !known.includes(policy);
    runs.addEventListener("click", () => {
      withRuns[policy] = !withRuns[policy];
      shown[policy] ||= withRuns[policy];
      draw();
    });
  });
  document.querySelectorAll(".all-runs").forEach((button) => {
    button.hidden = known.length < 2;
    button.addEventListener("click", () => {
      const on = !known.every((policy) => withRuns[policy]);
      known.forEach((policy) => { withRuns[policy] = on; });
      draw();
    });
  });

  // the first number of a cell: 0.523 [0.432, 0.615], 5,000,000 + 50,000, 0.1 %
  const first = (text) => {
    const found = /[-+]?\d[\d,]*(\.\d+)?(e[-+]?\d+)?/i.exec(text);
    return found === null ? -Infinity : Number(found[0].replace(/,/g, ""));
  };
  Tablesort.extend("value", () => false, (a, b) => {
    const difference = first(b) - first(a);
    return Number.isNaN(difference) ? 0 : difference; // of two that have none
  });
  document.querySelectorAll("table.sortable").forEach((table) => new Tablesort(table));

  dark.addEventListener("change", draw);
  draw();
})();
