// Figures of studies: curves with intervals, trade-offs, and dots task by task.
/* global data, builders, axis, number, escapeHtml, widest, shorten */

const methodOf = (name) => data.methods[name];
const methodColour = (name, colours) => colours.methods[methodOf(name).color];

// an axis of a measure: log where values span decades, else from zero where that means something
function valueAxis(colours, spec, gap) {
  return axis(colours, spec.name, {
    type: spec.log ? "log" : "value",
    scale: !spec.zero,
    max: spec.most ?? null,
    splitNumber: 4,
    nameGap: gap,
    axisLabel: { color: colours.ink, fontSize: 12, hideOverlap: true, formatter: (x) => number(x, 2) },
    splitLine: { show: true, lineStyle: { color: colours.rule } },
    axisLine: { show: true, lineStyle: { color: colours.muted } },
  });
}

// a log axis over few decades needs bounds of its own, else most of the picture is empty
function logBounds(values) {
  const some = values.filter((x) => x > 0 && Number.isFinite(x));
  if (!some.length) return {};
  const [low, high] = [Math.min(...some), Math.max(...some)];
  const room = Math.max(1.15, (high / low) ** 0.06);
  return { min: low / room, max: high * room };
}

const legend = (colours, lines, alone) => ({
  show: alone,
  top: 0,
  data: lines.map((line) => data.methods[line.method].label),
  textStyle: { color: colours.ink, fontSize: 12 },
});

function band(points, color, across) {
  return {
    type: "custom",
    silent: true,
    z: 1,
    clip: true,
    data: [0],
    encode: { x: -1, y: -1 },
    renderItem: (params, api) => {
      const box = params.coordSys;
      const place = (x, y) => [
        across ? (x ? box.x + box.width : box.x) : api.coord([x, y])[0],
        api.coord([across ? 1 : x, y])[1],
      ];
      const kept = across
        ? [0, 1].map((x) => [x, ...points[0].slice(1)])
        : points.filter((p) => p[2] !== null && p[3] !== null);
      if (kept.length < 2 || kept[0][2] === null) return null;
      const outline = [
        ...kept.map((p) => place(p[0], p[2])),
        ...kept.reverse().map((p) => place(p[0], p[3])),
      ];
      return { type: "polygon", shape: { points: outline }, style: { fill: color, opacity: 0.16 } };
    },
  };
}

builders.curves = (spec, colours, width, alone) => {
  const { x, y, lines, level } = spec.data;
  const series = lines.flatMap((line) => {
    const color = methodColour(line.method, colours);
    const { symbol, label } = methodOf(line.method);
    const points = line.points.filter((p) => p[1] !== null);
    if (!points.length) return [];
    if (line.across) {
      const flat = {
        silent: false,
        symbol: "none",
        label: { show: false },
        data: [{ yAxis: points[0][1], name: label }],
        lineStyle: { color, type: "dashed", width: 1.6 },
      };
      return [
        {
          type: "line",
          name: label,
          data: [],
          symbol,
          itemStyle: { color },
          lineStyle: { color, type: "dashed" },
          markLine: flat,
        },
        band(points, color, true),
      ];
    }
    const marks = points.map((p) => ({
      value: p,
      itemStyle: p[5] ? { color: colours.ground, borderColor: color, borderWidth: 1.5 } : { color },
    }));
    return [
      {
        type: "line",
        name: label,
        data: marks,
        symbol,
        symbolSize: 8,
        lineStyle: { color, width: 2 },
        itemStyle: { color },
        z: 3,
      },
      band(points, color, false),
    ];
  });
  const seen = lines.flatMap((line) => line.points.flatMap((p) => [p[1], p[2] ?? p[1], p[3] ?? p[1]]));
  const across = lines.filter((line) => !line.across).flatMap((line) => line.points.map((p) => p[0]));
  const bounds = y.log ? logBounds(seen) : {};
  const flats = seen.filter(Number.isFinite);
  if (!y.log && y.zero)
    Object.assign(bounds, { min: 0, max: Math.max(...flats) > 0.8 && Math.max(...flats) <= 1.05 ? 1 : null });
  if (level && level.value <= 1.3 * Math.max(...flats) && level.value >= 0.9 * Math.min(...flats)) {
    series.push({
      type: "line",
      data: [],
      silent: true,
      markLine: {
        silent: true,
        symbol: "none",
        data: [{ yAxis: level.value }],
        lineStyle: { color: colours.muted, type: "dotted" },
        label: { formatter: level.text, position: "insideEndTop", color: colours.muted, fontSize: 11 },
      },
    });
    if (y.log) bounds.max = Math.max(bounds.max, level.value * 1.1);
  }
  return {
    option: {
      legend: legend(colours, lines, alone),
      grid: { left: 58, right: 14, top: alone ? 56 : 12, bottom: 46 },
      xAxis: {
        ...valueAxis(colours, x, 28),
        ...(x.log
          ? {
              ...logBounds(across),
              axisLabel: {
                color: colours.ink,
                fontSize: 12,
                hideOverlap: true,
                formatter: (t) => number(t, 1),
              },
            }
          : {}),
        splitLine: { show: false },
      },
      yAxis: { ...valueAxis(colours, y, 44), ...bounds },
      tooltip: { formatter: (p) => curveTip(p, x, y) },
      series,
    },
    height: alone ? 360 : 250,
    rows: () => [
      ["method", x.name, "mean", "low", "high", "networks", "diverged"],
      ...lines.flatMap((line) => line.points.map((p) => [data.methods[line.method].label, ...p])),
    ],
  };
};

function curveTip(p, x, y) {
  if (p.componentType === "markLine")
    return `<b>${escapeHtml(p.name)}</b><br>${escapeHtml(y.name)} ${number(p.value)}`;
  const [at, mean, low, high, n] = p.value;
  const interval = low === null ? "" : `<br>95 % interval ${number(low)} to ${number(high)}`;
  return `<b>${escapeHtml(p.seriesName)}</b><br>${escapeHtml(x.name)} ${number(at)}<br>${escapeHtml(y.name)} ${number(mean)}${interval}${n ? `<br>${n} networks` : ""}`;
}

builders.fronts = (spec, colours, width, alone) => {
  const { x, y, lines, front, target } = spec.data;
  const joined = !front;
  const series = lines.map((line) => {
    const color = methodColour(line.method, colours);
    const { symbol, label } = methodOf(line.method);
    return {
      type: joined ? "line" : "scatter",
      name: label,
      data: line.points,
      symbol,
      symbolSize: joined ? 7 : 10,
      itemStyle: { color },
      lineStyle: { color, width: 2 },
      z: 3,
    };
  });
  if (front)
    series.push({
      type: "line",
      data: front,
      silent: true,
      symbol: "none",
      step: "end",
      lineStyle: { color: colours.muted, width: 1.5, opacity: 0.7 },
      z: 1,
    });
  if (Number.isFinite(target)) {
    series.push({
      type: "line",
      data: [],
      markLine: {
        silent: true,
        symbol: "none",
        data: [{ xAxis: target }],
        label: { show: false },
        lineStyle: { color: colours.ink, type: "dotted" },
      },
    });
  }
  const all = lines.flatMap((line) => line.points);
  const columns = [x.name, y.name, "strength"];
  return {
    option: {
      legend: legend(colours, lines, alone),
      grid: { left: 58, right: 14, top: alone ? 56 : 12, bottom: 46 },
      xAxis: {
        ...valueAxis(colours, x, 28),
        splitLine: { show: false },
        ...(front ? { min: 0, max: Math.ceil(1.08 * Math.max(...all.map((p) => p[0]), target ?? 0)) } : {}),
      },
      yAxis: { ...valueAxis(colours, y, 44), ...logBounds(all.map((p) => p[1])) },
      tooltip: {
        formatter: (p) =>
          `<b>${escapeHtml(p.seriesName)}</b>, strength ${number(p.value[2])}<br>${escapeHtml(x.name)} ${number(p.value[0])}<br>${escapeHtml(y.name)} ${number(p.value[1])}`,
      },
      series,
    },
    height: alone ? 360 : 250,
    rows: () => [
      ["method", ...columns],
      ...lines.flatMap((line) => line.points.map((p) => [data.methods[line.method].label, ...p])),
    ],
  };
};

builders.dots = (spec, colours, width, alone) => {
  const { x, tasks } = spec.data;
  const methods = [...new Set(tasks.flatMap((task) => task.rows.map((row) => row.method)))];
  const slots = tasks.flatMap((task) => [{ head: task.name }, ...task.rows.map((row) => ({ row, task }))]);
  const values = slots
    .filter((s) => s.row)
    .flatMap((s) => [
      s.row.mean,
      s.row.low ?? s.row.mean,
      s.row.high ?? s.row.mean,
      s.task.target ?? s.row.mean,
    ]);
  const series = methods.flatMap((name) => {
    const color = methodColour(name, colours);
    const { symbol, label } = methodOf(name);
    const own = slots
      .map((slot, n) => [slot, n])
      .filter(([slot]) => slot.row?.method === name && slot.row.mean !== null);
    return [
      {
        type: "scatter",
        name: label,
        symbol,
        symbolSize: 9,
        itemStyle: { color },
        z: 3,
        data: own.map(([slot, n]) => ({
          value: [slot.row.mean, n, slot.row.low, slot.row.high],
          name: slot.task.name,
        })),
      },
      {
        type: "custom",
        silent: true,
        itemStyle: { color },
        encode: { x: [0, 1], y: 2 },
        z: 2,
        data: own
          .filter(([slot]) => slot.row.low !== null)
          .map(([slot, n]) => [slot.row.low, slot.row.high, n]),
        renderItem: bar,
      },
    ];
  });
  const targets = tasks
    .filter((task) => Number.isFinite(task.target))
    .map((task) => {
      const places = slots
        .map((slot, n) => [slot, n])
        .filter(([slot]) => slot.task === task)
        .map(([, n]) => n);
      return [task.target, Math.min(...places), Math.max(...places)];
    });
  if (targets.length)
    series.push({
      type: "custom",
      silent: true,
      data: targets,
      encode: { x: 0, y: [1, 2] },
      renderItem: upright(colours),
      z: 1,
    });
  return {
    option: {
      legend: legend(
        colours,
        methods.map((method) => ({ method })),
        alone,
      ),
      grid: { left: 14, right: 20, top: alone ? 56 : 4, bottom: 46 },
      xAxis: { ...valueAxis(colours, x, 28), ...(x.log ? logBounds(values) : x.zero ? { min: 0 } : {}) },
      yAxis: {
        type: "category",
        inverse: true,
        data: slots.map((slot) => slot.head ?? ""),
        axisTick: { show: false },
        axisLine: { lineStyle: { color: colours.rule } },
        axisLabel: {
          inside: true,
          interval: 0,
          color: colours.ink,
          fontSize: 12,
          margin: 4,
          formatter: (text) => shorten(text, Math.floor(width / 7.5)),
        },
        splitLine: {
          show: true,
          interval: (n) => Boolean(slots[n]?.head) && n > 0,
          lineStyle: { color: colours.rule },
        },
        z: 4,
      },
      tooltip: {
        formatter: (p) =>
          `<b>${escapeHtml(p.seriesName)}</b>, ${escapeHtml(p.name)}<br>${escapeHtml(x.name)} ${number(p.value[0])}${Number.isFinite(p.value[2]) ? `<br>95 % interval ${number(p.value[2])} to ${number(p.value[3])}` : ""}`,
      },
      series,
    },
    height: 56 + 15 * slots.length + (alone ? 52 : 0),
    rows: () => [
      ["task", "method", "mean", "low", "high"],
      ...tasks.flatMap((task) =>
        task.rows.map((row) => [task.name, data.methods[row.method].label, row.mean, row.low, row.high]),
      ),
    ],
  };
};

function bar(params, api) {
  const [x1, y] = api.coord([api.value(0), api.value(2)]);
  const [x2] = api.coord([api.value(1), api.value(2)]);
  return {
    type: "line",
    shape: { x1, y1: y, x2, y2: y },
    style: { stroke: api.visual("color"), lineWidth: 2 },
  };
}

const upright = (colours) => (params, api) => {
  const [x, y1] = api.coord([api.value(0), api.value(1)]);
  const [, y2] = api.coord([api.value(0), api.value(2)]);
  const half = api.size([0, 1])[1] / 2;
  return {
    type: "line",
    shape: { x1: x, y1: y1 - half, x2: x, y2: y2 + half },
    style: { stroke: colours.ink, lineWidth: 1.2, lineDash: [2, 3] },
  };
};
