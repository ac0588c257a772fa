// Figures of hop maps: the map at one hop, and all hops at once.
/* global data, state, axis, number, signed, percent, shorten, widest, escapeHtml, redraw, calm */

const view = () => data.views[state.view];
// walks of a bidirectional network have no lag
const hopTick = (v, k) => (v.lags ? `${v.hops[k]} (${v.lags[k]})` : `${v.hops[k]}`);
const hopName = (v, k) => `hop ${v.hops[k]}${v.lags ? ` (lag ${v.lags[k]})` : ""}`;
const hopAxis = (v) => (v.lags ? "hop (lag)" : "hop");
const cell = (v, k, o, i) => v.values[k][o * v.inputs.length + i];
const sizes = (v) => v.values.map((row) => row.reduce((most, x) => Math.max(most, Math.abs(x)), 0));
const shareOf = (v, k, value) => (v.mass[k] ? Math.abs(value) / v.mass[k] : 0);
const inMode = (v, k, value) =>
  state.mode === "share" ? shareOf(v, k, value) : state.mode === "raw" ? Math.abs(value) : value;

// one scale across hops: colours of different hops can be compared
function scale(v) {
  const most = sizes(v).map((size, k) => (state.mode === "share" ? shareOf(v, k, size) : size));
  return Math.max(...most) || 1;
}

const mix = (a, b, t) => {
  const part = (hex, n) => parseInt(hex.slice(1 + 2 * n, 3 + 2 * n), 16);
  return `rgb(${[0, 1, 2].map((n) => Math.round(part(a, n) * (1 - t) + part(b, n) * t)).join(",")})`;
};

function ramp(v, colours) {
  const steps = 32;
  const shades = (end) =>
    Array.from({ length: steps + 1 }, (_, n) => mix(colours.ground, end, (n / steps) ** v.gamma));
  const up = shades(state.mode === "signed" ? colours.positive : colours.strong);
  return state.mode === "signed" ? [...shades(colours.negative).reverse(), ...up.slice(1)] : up;
}

const MODE_NAMES = {
  signed: "pathway weight",
  raw: "size of the pathway weight",
  share: "share of the hop’s influence",
};

function colourBar(v, colours, width) {
  const limit = scale(v);
  const show = state.mode === "share" ? percent : state.mode === "raw" ? number : signed;
  return {
    type: "continuous",
    min: state.mode === "signed" ? -limit : 0,
    max: limit,
    seriesIndex: 0,
    orient: "horizontal",
    left: "center",
    top: 0,
    itemWidth: 11,
    itemHeight: Math.min(220, width * 0.42),
    text: [show(limit), state.mode === "signed" ? show(-limit) : "0"],
    textStyle: { color: colours.ink, fontSize: 12 },
    formatter: show,
    inRange: { color: ramp(v, colours) },
    precision: 12,
    hoverLink: true,
  };
}

function cellTip(v, k, o, i) {
  const value = cell(v, k, o, i);
  const where = [v.inputModules && v.inputModules[i], v.outputModules && v.outputModules[o]];
  const modules = where.some(Boolean) ? `<br>${where.map((m) => escapeHtml(m ?? "–")).join(" → ")}` : "";
  return (
    `<b>${escapeHtml(v.inputs[i])} → ${escapeHtml(v.outputs[o])}</b>${modules}<br>${hopName(v, k)}` +
    `<br>weight ${signed(value)}<br>${percent(shareOf(v, k, value))} of this hop’s influence`
  );
}

// a second axis that names runs of equal labels and draws the lines between them
function groupAxis(colours, labels, extra) {
  const starts = labels.map((label, n) => n === 0 || labels[n - 1] !== label);
  const middle = labels.map((label) => {
    const first = labels.indexOf(label);
    return first + Math.floor((labels.lastIndexOf(label) - first) / 2);
  });
  return axis(colours, "", {
    type: "category",
    data: labels.map(String),
    z: 5,
    axisLine: { show: false },
    axisLabel: {
      color: colours.muted,
      fontSize: 12,
      interval: (n) => middle[n] === n,
      formatter: (text) => shorten(text, 14),
      hideOverlap: true,
    },
    splitLine: {
      show: true,
      interval: (n) => starts[n] && n > 0,
      lineStyle: { color: colours.muted, width: 1 },
    },
    ...extra,
  });
}

// outlines the row of the chosen hop, or nothing
const outline = (rows, colours, columns) => ({
  type: "custom",
  silent: true,
  z: 6,
  data: rows,
  encode: { x: -1, y: -1 },
  renderItem: (params, api) => {
    const [x, y] = api.coord([0, api.value(1)]);
    const [w, h] = api.size([1, 1]);
    return {
      type: "rect",
      shape: { x: x - w / 2, y: y - h / 2, width: w * columns, height: h },
      style: { fill: null, stroke: colours.ink, lineWidth: 1.5 },
    };
  },
});

const builders = {};

builders.map = (spec, colours, width) => {
  const v = view();
  const [rows, columns] = [v.outputs.length, v.inputs.length];
  const most = width < 480 ? 8 : 14;
  const left = Math.min(widest(v.outputs, most) + 30 + (v.outputModules ? 20 : 0), width * 0.3);
  const plot = width - left - 8;
  const upright = widest(v.inputs, most) > plot / columns - 4;
  const everyColumn = plot / columns >= 14;
  const below = upright ? widest(v.inputs, most) : 14;
  const bottom = below + 30 + (v.inputModules ? 18 : 0);
  const side = Math.max(plot / columns < 10 ? 6 : 14, Math.min(44, plot / columns, 480 / rows));
  const height = 44 + bottom + Math.max(side * rows, Math.min(200, 44 * rows));
  const right = Math.max(8, width - left - Math.max(side * 1.6, Math.min(plot / columns, 70)) * columns);
  const points = v.outputs.flatMap((_, o) =>
    v.inputs.map((__, i) => [i, o, inMode(v, state.hop, cell(v, state.hop, o, i))]),
  );
  const names = (list, extra) =>
    axis(colours, extra.name, {
      type: "category",
      data: list.map(String),
      ...extra,
      axisLabel: {
        color: colours.ink,
        fontSize: 12,
        formatter: (text) => shorten(text, most),
        interval: extra.every ? 0 : "auto",
        rotate: extra.rotate ?? 0,
        overflow: "none",
      },
    });
  const x = names(v.inputs, {
    name: "input",
    nameGap: below + 14 + (v.inputModules ? 18 : 0),
    rotate: upright ? 90 : 0,
    every: everyColumn,
  });
  const y = names(v.outputs, { name: "output", inverse: true, nameGap: left - 14, every: side >= 14 });
  const option = {
    grid: { left, right, top: 40, bottom },
    xAxis: v.inputModules
      ? [x, groupAxis(colours, v.inputModules, { position: "bottom", offset: below + 2 })]
      : [x],
    yAxis: v.outputModules
      ? [
          y,
          groupAxis(colours, v.outputModules, {
            position: "left",
            offset: left - 46,
            inverse: true,
            axisLabel: { show: false },
          }),
        ]
      : [y],
    visualMap: colourBar(v, colours, width),
    tooltip: {
      formatter: (p) => (p.seriesType === "heatmap" ? cellTip(v, state.hop, p.value[1], p.value[0]) : ""),
    },
    series: [
      {
        type: "heatmap",
        data: points,
        progressive: 0,
        itemStyle: { borderColor: colours.ground, borderWidth: side > 12 ? 1 : 0 },
        emphasis: { itemStyle: { borderColor: colours.ink, borderWidth: 1.5 } },
      },
    ],
  };
  // the second axes need a series to be laid out by
  if (v.inputModules || v.outputModules) {
    option.series.push({
      type: "scatter",
      data: [],
      silent: true,
      xAxisIndex: v.inputModules ? 1 : 0,
      yAxisIndex: v.outputModules ? 1 : 0,
    });
  }
  const head = ["hop", "lag", "output", "input", "weight", "share_of_hop"];
  return {
    option,
    height,
    label: `Map of outputs by inputs at ${hopName(v, state.hop)}, ${MODE_NAMES[state.mode]}. ${strongestText(v, state.hop)}`,
    rows: () => [
      head,
      ...v.hops.flatMap((_, k) =>
        v.outputs.flatMap((o, n) =>
          v.inputs.map((i, m) => [
            v.hops[k],
            v.lags ? v.lags[k] : "",
            o,
            i,
            cell(v, k, n, m),
            shareOf(v, k, cell(v, k, n, m)),
          ]),
        ),
      ),
    ],
  };
};

function strongestText(v, k) {
  const row = v.values[k];
  const best = row.reduce((at, x, n) => (Math.abs(x) > Math.abs(row[at]) ? n : at), 0);
  if (!row[best]) return "No pathway of this length.";
  const [o, i] = [Math.floor(best / v.inputs.length), best % v.inputs.length];
  return `Strongest: ${v.inputs[i]} → ${v.outputs[o]}, ${signed(row[best])}.`;
}

builders.overview = (spec, colours, width) => {
  const v = view();
  const wide = v.inputs.length;
  const to = v.pairs.map((p) => v.outputs[Math.floor(p / wide)]);
  const pairNames = v.pairs.map((p) => `${v.inputs[p % wide]} → ${v.outputs[Math.floor(p / wide)]}`);
  const row = Math.max(3, Math.min(20, 420 / v.hops.length));
  const height = 96 + Math.max(60, row * v.hops.length);
  const points = v.hops.flatMap((_, k) => v.pairs.map((p, n) => [n, k, inMode(v, k, v.values[k][p])]));
  const grouped = new Set(to).size > 1 && (width - 70) / new Set(to).size > 24;
  const option = {
    grid: { left: 58, right: 8, top: 40, bottom: 48 },
    xAxis: [
      axis(colours, `${v.pairs.length > 1 ? "from each input, " : ""}by output`, {
        type: "category",
        data: pairNames,
        axisLabel: { show: false },
        nameGap: 28,
      }),
      groupAxis(colours, to, {
        position: "bottom",
        ...(grouped ? {} : { axisLabel: { show: false }, splitLine: { show: false } }),
      }),
    ],
    yAxis: axis(colours, hopAxis(v), {
      type: "category",
      inverse: true,
      data: v.hops.map((_, k) => hopTick(v, k)),
      nameGap: 44,
      axisLabel: { color: colours.ink, fontSize: 12, interval: Math.ceil(15 / row) - 1 },
    }),
    visualMap: colourBar(v, colours, width),
    tooltip: {
      formatter: (p) => {
        if (p.seriesType !== "heatmap") return "";
        const place = v.pairs[p.value[0]];
        return cellTip(v, p.value[1], Math.floor(place / wide), place % wide);
      },
    },
    series: [
      {
        type: "heatmap",
        data: points,
        progressive: 0,
        itemStyle: { borderWidth: 0 },
        emphasis: { itemStyle: { borderColor: colours.ink, borderWidth: 1.5 } },
      },
      { type: "scatter", data: [], silent: true, xAxisIndex: 1 },
      outline([[0, state.hop]], colours, v.pairs.length),
    ],
  };
  return {
    option,
    height,
    choose: (event) => event.seriesType === "heatmap" && chooseHop(event.value[1]),
    label: `All hops: a row a hop, a column an input-output pair; ${v.pairs.length} pairs, ${MODE_NAMES[state.mode]}.`,
    rows: () => [
      ["hop", "lag", "pair", "weight"],
      ...v.hops.flatMap((hop, k) => v.pairs.map((p, n) => [hop, v.lags ? v.lags[k] : "", pairNames[n], v.values[k][p]])),
    ],
  };
};
