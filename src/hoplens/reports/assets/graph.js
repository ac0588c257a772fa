// The routing graph: columns of inputs, groups of hidden units and outputs; width of a line is strength.
/* global data, state, view, builders, hopName, number, signed, percent, shorten, widest, escapeHtml, cell, scale */

const LEAST_DRAWN = 0.01; // lines below this share of the hop's strongest are left out of the picture
const WIDEST = { groups: 22, pairs: 8 }; // pixels

const curve = (colours) => (params, api) => {
  const [x1, y1] = api.coord([api.value(0), api.value(1)]);
  const [x2, y2] = api.coord([api.value(2), api.value(3)]);
  const half = (x1 + x2) / 2;
  return {
    type: "bezierCurve",
    shape: { x1, y1, x2, y2, cpx1: half, cpy1: y1, cpx2: half, cpy2: y2 },
    style: { stroke: api.visual("color"), lineWidth: api.value(4), fill: null, opacity: api.value(5) },
    emphasis: { style: { opacity: 1, stroke: colours.ink } },
    transition: ["style"],
  };
};

// strengths at every hop; without hidden units the pairs themselves
function routes(v) {
  const graph = data.graph;
  if (graph) {
    const matrix = (rows, width) => (n, m, k) => (rows[k] ? rows[k][n * width + m] : 0);
    const [I, G] = [graph.inputs.length, graph.groups.length];
    const names = graph.groups.map((g) => g.name);
    return {
      columns: [graph.inputs, names, names, graph.outputs],
      titles: ["inputs", "enter by", "leave by", "outputs"],
      stages: [
        { at: matrix(graph.enter, I) },
        { at: matrix(graph.through, G) },
        { at: matrix(graph.leave, G) },
      ],
    };
  }
  const names = (list, modules) => (list.length > 16 && modules ? [...new Set(modules)] : list);
  const [from, to] = [names(v.inputs, v.inputModules), names(v.outputs, v.outputModules)];
  const place = (list, modules, shown, n) => shown.indexOf(shown === list ? list[n] : modules[n]);
  const sums = v.hops.map((_, k) => {
    const sum = to.map(() => from.map(() => 0));
    v.outputs.forEach((__, o) =>
      v.inputs.forEach((___, i) => {
        const value = cell(v, k, o, i);
        const [a, b] = [place(v.outputs, v.outputModules, to, o), place(v.inputs, v.inputModules, from, i)];
        if (Math.abs(value) > Math.abs(sum[a][b])) sum[a][b] = value;
      }),
    );
    return sum;
  });
  const share = (o, i, k) => (v.mass[k] ? sums[k][o][i] / v.mass[k] : 0);
  return { columns: [from, to], titles: ["inputs", "outputs"], stages: [{ at: share }] };
}

// lines of a stage: (left node, right node, share of the hop's influence)
function lines(route, stage, k) {
  const { at } = route.stages[stage];
  const [left, right] = [route.columns[stage], route.columns[stage + 1]];
  return left.flatMap((_, a) => right.map((__, b) => [a, b, at(b, a, k)]));
}

const spread = (count, n, most) => (n + 0.5) * (most / count);

builders.graph = (spec, colours, width) => {
  const v = view();
  const route = routes(v);
  const rows = Math.max(...route.columns.map((c) => c.length));
  const most = width < 480 ? 9 : 14;
  const pad = [widest(route.columns[0], most) + 26, widest(route.columns.at(-1), most) + 26];
  const height = Math.max(340, Math.min(640, rows * 30 + 60));
  const widestLine = data.graph ? WIDEST.groups : WIDEST.pairs;
  const raw = state.mode !== "share";
  const strengths = v.hops.map((_, k) => (raw ? v.mass[k] : 1));
  const perStage = (k) =>
    route.stages.map((_, s) => Math.max(0, ...lines(route, s, k).map((l) => Math.abs(l[2]))));
  const top = Math.max(1e-300, ...v.hops.flatMap((_, k) => perStage(k).map((m) => m * strengths[k])));
  const group = (name) =>
    colours.groups[
      Math.max(
        0,
        (data.graph?.groups ?? []).findIndex((g) => g.name === name),
      ) % colours.groups.length
    ];
  const colour = (stage, a, b, value) =>
    !data.graph
      ? value < 0
        ? colours.negative
        : colours.positive
      : group(stage === 0 ? route.columns[1][b] : route.columns[stage][a]);
  const drawn = route.stages.flatMap((_, stage) => {
    const all = lines(route, stage, state.hop);
    const least = LEAST_DRAWN * Math.max(...all.map((l) => Math.abs(l[2])));
    return all.map(([a, b, value]) => {
      const size = (Math.abs(value) * strengths[state.hop]) / top;
      const seen = value !== 0 && Math.abs(value) >= least;
      return {
        name: `${stage}`,
        value: [
          stage,
          spread(route.columns[stage].length, a, rows),
          stage + 1,
          spread(route.columns[stage + 1].length, b, rows),
          seen ? Math.max(0.4, widestLine * size) : 0,
          seen ? 0.3 + 0.45 * Math.min(1, size * 1.5) : 0,
          value,
          a,
          b,
        ],
        itemStyle: { color: colour(stage, a, b, value) },
      };
    });
  });
  const through = route.columns.map((names, c) =>
    names.map((_, n) => {
      const stage = c === 0 ? 0 : c - 1;
      return lines(route, stage, state.hop).reduce(
        (sum, l) => sum + (l[c === 0 ? 0 : 1] === n ? Math.abs(l[2]) : 0),
        0,
      );
    }),
  );
  const last = route.columns.length - 1;
  const nodes = route.columns.flatMap((names, c) =>
    names.map((name, n) => ({
      name,
      value: [c, spread(names.length, n, rows), through[c][n]],
      symbolSize: 8 + 22 * Math.sqrt(Math.min(1, through[c][n])),
      itemStyle: { color: c === 0 || c === last ? colours.muted : group(name) },
      label: {
        show: true,
        position: c === 0 ? "left" : c === last ? "right" : "top",
        distance: 6,
        formatter: () => nodeLabel(name, c, last, most, width),
        color: colours.ink,
        fontSize: 12,
        textBorderColor: colours.ground,
        textBorderWidth: 3,
      },
    })),
  );
  const option = {
    grid: { left: pad[0], right: pad[1], top: 46, bottom: 14 },
    xAxis: {
      type: "value",
      min: 0,
      max: last,
      interval: 1,
      position: "top",
      axisLine: { show: false },
      axisTick: { show: false },
      splitLine: { show: false },
      axisLabel: {
        color: colours.muted,
        fontSize: 12,
        margin: 16,
        formatter: (x) => route.titles[Math.round(x)],
      },
    },
    yAxis: { type: "value", min: 0, max: rows, inverse: true, show: false },
    tooltip: { formatter: (p) => (p.seriesType === "custom" ? lineTip(v, route, p) : nodeTip(v, route, p)) },
    series: [
      {
        type: "custom",
        data: drawn,
        renderItem: curve(colours),
        encode: { x: [0, 2], y: [1, 3] },
        clip: false,
        z: 2,
      },
      { type: "scatter", data: nodes, z: 4, clip: false, emphasis: { scale: 1.2 } },
    ],
  };
  const best = drawn.reduce((a, b) => (Math.abs(b.value[6]) > Math.abs(a.value[6]) ? b : a));
  return {
    option,
    height,
    label: `Routing graph at ${hopName(v, state.hop)}: ${route.titles.join(", ")}. Widest line: ${ends(route, best.value).join(" → ")}, ${percent(Math.abs(best.value[6]))}.`,
    rows: () => [
      ["hop", "stage", "from", "to", "share", "strength"],
      ...v.hops.flatMap((hop, k) =>
        route.stages.flatMap((_, s) =>
          lines(route, s, k).map((l) => [
            hop,
            route.titles.slice(s, s + 2).join(" > "),
            route.columns[s][l[0]],
            route.columns[s + 1][l[1]],
            l[2],
            l[2] * v.mass[k],
          ]),
        ),
      ),
    ],
  };
};

// groups of units are told with their size where there is room
function nodeLabel(name, column, last, most, width) {
  const found = column > 0 && column < last && data.graph.groups.find((g) => g.name === name);
  const size = found && found.count > 1 && width > 480 ? ` (${found.count} units)` : "";
  return shorten(name, most) + size;
}

const ends = (route, value) => [route.columns[value[0]][value[7]], route.columns[value[0] + 1][value[8]]];

function lineTip(v, route, p) {
  const [from, to] = ends(route, p.value).map(escapeHtml);
  const share = p.value[6];
  const size = share * v.mass[state.hop];
  const what = data.graph ? `strength ${number(size)}` : `weight ${signed(size)}`;
  return `<b>${from} → ${to}</b><br>${route.titles[p.value[0]]} → ${route.titles[p.value[0] + 1]}, ${hopName(v, state.hop)}<br>${what}<br>${percent(Math.abs(share))} of this hop’s influence`;
}

function nodeTip(v, route, p) {
  const column = p.value[0];
  const found = (data.graph?.groups ?? []).find((g) => g.name === p.name);
  const inside = found && column > 0 && column < route.columns.length - 1;
  const more = inside
    ? `<br>${found.count} units: ${found.units.map(escapeHtml).join(", ")}${found.count > found.units.length ? ", …" : ""}`
    : "";
  return `<b>${escapeHtml(p.name)}</b> (${route.titles[column]})${more}<br>${percent(p.value[2])} of this hop’s influence`;
}
