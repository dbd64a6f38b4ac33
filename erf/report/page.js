"use strict";
(() => {
  const content = JSON.parse(document.getElementById("content").textContent);
  const [height, width] = content.size;
  const chosen = { subset: content.subsets[0], definition: content.definition, scale: "log", file: 0, side: "" };
  const decades = 4;

  const element = (kind, text, cls) => {
    const made = document.createElement(kind);
    if (text !== undefined) made.textContent = text;
    if (cls) made.className = cls;
    return made;
  };

  const table = (place, head, rows, numbers) => {
    const made = element("table");
    const top = made.createTHead().insertRow();
    head.forEach((cell) => top.appendChild(element("th", cell)));
    const body = made.createTBody();
    rows.forEach((row) => {
      const line = body.insertRow();
      row.forEach((cell, index) => line.appendChild(element("td", cell, index >= numbers ? "number" : "")));
    });
    document.getElementById(place).appendChild(made);
  };

  const choice = (place, words, name, options, redraw) => {
    const label = element("label", words);
    const select = element("select");
    select.dataset.name = name;
    options.forEach(([value, text]) => {
      const option = element("option", text);
      option.value = value;
      select.appendChild(option);
    });
    select.value = chosen[name];
    select.addEventListener("change", () => { chosen[name] = select.value; redraw(); });
    label.appendChild(select);
    document.getElementById(place).appendChild(label);
  };

  const panel = (index) => content.panels[`${index}/${chosen.subset}/${chosen.definition}`];
  const decoded = new Map();
  const values = (part) => {
    if (!decoded.has(part)) {
      const bytes = Uint8Array.from(atob(part.map), (letter) => letter.charCodeAt(0));
      decoded.set(part, new Float32Array(bytes.buffer));
    }
    return decoded.get(part);
  };
  const signed = () => chosen.definition === "signed";
  const scaled = (value) => {
    const size = Math.abs(value);
    if (chosen.scale === "linear") return value;
    if (chosen.scale === "sqrt") return Math.sign(value) * Math.sqrt(size);
    return Math.sign(value) * Math.max(0, 1 + Math.log10(Math.max(size, 1e-30)) / decades);
  };
  const curved = (value) => (chosen.scale === "sqrt" ? Math.sign(value) * Math.sqrt(Math.abs(value)) : value);

  const heat = (part) => {
    const [rows, columns] = part.shape;
    const raw = values(part);
    const z = [], shown = [];
    for (let row = 0; row < rows; row += 1) {
      const line = Array.from(raw.subarray(row * columns, (row + 1) * columns));
      z.push(line.map(scaled));
      shown.push(line);
    }
    const places = (count) => Array.from({ length: count }, (_, index) => index * part.block + (part.block - 1) / 2);
    return {
      type: "heatmap", x: places(columns), y: places(rows), z, customdata: shown, zmin: signed() ? -1 : 0, zmax: 1,
      colorscale: signed() ? "RdBu" : "Viridis", reversescale: signed(), showscale: false, xaxis: "x", yaxis: "y",
      hovertemplate: "x %{x:.0f}, y %{y:.0f} px<br>%{customdata:.2e} of the maximum<extra></extra>",
    };
  };

  const lines = (curve, color, across, axes, name) => {
    const at = curve.at, share = curve.share.map(curved);
    const flip = (one, two) => (across ? { x: one, y: two } : { x: two, y: one });
    const traces = [];
    if (curve.low) {
      const around = [...at, ...at.slice().reverse()];
      const edge = [...curve.low, ...curve.high.slice().reverse()].map(curved);
      traces.push({ ...flip(around, edge), ...axes, type: "scatter", mode: "lines", fill: "toself", fillcolor: color,
        opacity: 0.25, line: { width: 0 }, hoverinfo: "skip", showlegend: false });
    }
    const unit = chosen.scale === "sqrt" ? "√‰" : "‰";
    const hover = across ? `x %{x:.0f} px<br>%{y:.3g} ${unit} per px` : `y %{y:.0f} px<br>%{x:.3g} ${unit} per px`;
    traces.push({ ...flip(at, share), ...axes, type: "scatter", mode: "lines", line: { color, width: 1.5 }, name: name || "",
      showlegend: Boolean(name), hovertemplate: `${hover}<extra></extra>` });
    return traces;
  };

  const quiet = { displaylogo: false, responsive: true, modeBarButtonsToRemove: ["select2d", "lasso2d"] };
  const font = { size: 11 };
  const spikes = { showspikes: true, spikemode: "across", spikethickness: 1, spikecolor: "#999", spikedash: "dot" };

  const drawField = (index) => {
    const part = panel(index), color = content.colors[index], [y, x] = content.centers[index], box = content.boxes[index];
    const traces = [
      heat(part),
      ...lines(part.curves.across_rows, color, true, { xaxis: "x", yaxis: "y2" }),
      ...lines(part.curves.across_columns, color, false, { xaxis: "x2", yaxis: "y" }),
      { type: "scatter", x: [x], y: [y], mode: "markers", marker: { symbol: "cross-thin", size: 9, line: { color: signed() ? "black" : "white", width: 1.5 } },
        xaxis: "x", yaxis: "y", hoverinfo: "skip", showlegend: false },
    ];
    const shapes = box ? [{ type: "rect", y0: box[0], x0: box[1], y1: box[2], x1: box[3], xref: "x", yref: "y",
      line: { color: signed() ? "black" : "white", width: 1, dash: "dash" } }] : [];
    // Square pixels: margins are 60 and 80, and the map has 76 % of the rest both ways.
    const tall = 80 + (document.getElementById(`field-${index}`).clientWidth - 60) * (height / width);
    const layout = {
      title: { text: `<b>${plain(content.labels[index])}</b>, N = ${part.count}`, font: { size: 14, color }, x: 0.02, xanchor: "left" },
      height: tall, margin: { l: 50, r: 10, t: 40, b: 40 }, font, showlegend: false, shapes, hovermode: "closest",
      xaxis: { domain: [0, 0.76], range: [-0.5, width - 0.5], title: { text: "x [px]" }, ...spikes },
      yaxis: { domain: [0, 0.76], range: [height - 0.5, -0.5], title: { text: "y [px]" }, ...spikes },
      yaxis2: { domain: [0.8, 1], anchor: "x", showticklabels: false, rangemode: signed() ? "normal" : "tozero" },
      xaxis2: { domain: [0.8, 1], anchor: "y", showticklabels: false, rangemode: signed() ? "normal" : "tozero" },
    };
    Plotly.react(`field-${index}`, traces, layout, quiet);
  };

  // Plotly reads some HTML in texts.
  const plain = (text) => text.replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;");

  const drawOverlay = (place, name, across) => {
    const traces = content.labels.flatMap((label, index) =>
      lines(panel(index).curves[name], content.colors[index], true, {}, plain(label)));
    const limit = across ? width : height;
    Plotly.react(place, traces, {
      height: 320, margin: { l: 55, r: 10, t: 35, b: 40 }, font, hovermode: "closest",
      title: { text: across ? "Sum across rows" : "Sum across columns", font: { size: 13 } },
      legend: { x: 0.99, xanchor: "right", y: 0.99, bgcolor: "rgba(255,255,255,0.6)" },
      xaxis: { range: [-0.5, limit - 0.5], title: { text: across ? "x [px]" : "y [px]" } },
      yaxis: { title: { text: chosen.scale === "sqrt" ? "√ share [√‰ per px]" : "share [‰ per px]" },
        type: chosen.scale === "log" && !signed() ? "log" : "linear",
        rangemode: signed() ? "normal" : "tozero", exponentformat: "power" },
    }, quiet);
  };

  const drawMaps = () => {
    content.labels.forEach((label, index) => drawField(index));
    drawOverlay("rows", "across_rows", true);
    drawOverlay("columns", "across_columns", false);
  };

  const drawImages = () => {
    const browser = document.getElementById("browser");
    browser.replaceChildren();
    content.images[chosen.file].filter((image) => !chosen.side || image.side === chosen.side).forEach((image) => {
      const figure = element("figure"), pair = element("div");
      [[image.thumbnail, "image"], [image.map, "its receptive field"]].forEach(([source, words]) => {
        if (!source) return;
        const picture = element("img");
        picture.src = source;
        picture.alt = words;
        pair.appendChild(picture);
      });
      figure.appendChild(pair);
      const words = [image.id, image.side, image.view, image.patient, image.message].filter(Boolean).join(" · ");
      figure.appendChild(element("figcaption", words));
      browser.appendChild(figure);
    });
  };

  document.getElementById("subtitle").textContent =
    content.labels.map((label, index) => `${label}: theoretical receptive field ${content.fields[index]}`).join(" · ");
  const notice = document.getElementById("private");
  notice.textContent = content.private;
  notice.hidden = !content.private;
  table("values", ...content.values, 3);
  if (content.differences) table("differences", ...content.differences, 2);
  document.getElementById("caption").textContent = content.caption;
  table("measures", ["measure", "meaning", "unit", "range", "source"], content.measures, 9);
  const names = content.provenance[0].map(([name]) => name);
  table("origin", ["", ...content.labels],
    names.map((name, row) => [name, ...content.provenance.map((rows) => rows[row][1])]), 9);
  content.labels.forEach((label, index) => {
    const place = element("div");
    place.id = `field-${index}`;
    document.getElementById("fields").appendChild(place);
  });
  const named = (list) => list.map((name) => [name, name]);
  choice("switches", "subset", "subset", named(content.subsets), drawMaps);
  choice("switches", "definition", "definition", named(content.definitions), drawMaps);
  choice("switches", "scale", "scale", [["log", "logarithm"], ["sqrt", "square root"], ["linear", "linear"]], drawMaps);
  choice("image-switches", "network", "file", content.labels.map((label, index) => [index, label]), drawImages);
  choice("image-switches", "side", "side", [["", "all"], ["left", "left"], ["right", "right"]], drawImages);
  drawMaps();
  drawImages();
  let waiting = 0;
  window.addEventListener("resize", () => {
    clearTimeout(waiting);
    waiting = setTimeout(drawMaps, 150);
  });
})();
