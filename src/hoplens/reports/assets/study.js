// Figures of studies: curves with intervals, trade-offs, and dots task by task.
/* global data, builders, axis, number, escapeHtml, widest, shorten */

const methodOf = (name) => data.methods[name];
const methodColour = (name, colours) => colours.methods[methodOf(name).color];

// an axis of a measure: log where values span decades, else from zero where that means something
function valueAxis(colours, spec, gap, values) {
  const seen = values.filter((x) => Number.isFinite(x));
  return axis(colours, spec.name, {
    type: spec.log ? "log" : "value",
    scale: !spec.zero,
    splitNumber: 4,
    nameGap: gap,
    axisLabel: { color: colours.ink, fontSize: 12, hideOverlap: true, formatter: (x) => number(x, 3) },
    splitLine: { show: true, lineStyle: { color: colours.rule } },
    axisLine: { show: true, onZero: false, lineStyle: { color: colours.muted } },
    ...(spec.log ? logScale(colours, seen) : {}),
    ...(spec.most && !spec.log
      ? {
          max: spec.most,
          min: Math.min(0, (Math.floor((4 * Math.min(...seen)) / spec.most) * spec.most) / 4),
          interval: spec.most / 4,
        }
      : {}),
  });
}

// a log axis over few decades needs bounds and ticks of its own, else most of it is empty or unlabelled
function logScale(colours, values) {
  const some = values.filter((x) => x > 0);
  if (!some.length) return {};
  const [low, high] = [Math.min(...some), Math.max(...some)];
  const room = Math.max(1.15, (high / low) ** 0.06);
  const [min, max] = [low / room, high * room];
  const span = max / min;
  const steps = span < 6 ? [1, 2, 3, 4, 6, 8] : span < 25 ? [1, 2, 5] : span < 300 ? [1, 3] : [1];
  const ticks = [];
  for (let power = Math.floor(Math.log10(min)); power <= Math.log10(max); power++) {
    ticks.push(...steps.map((step) => Number(`${step}e${power}`)).filter((x) => x >= min && x <= max));
  }
  const label = { color: colours.ink, fontSize: 12, hideOverlap: true, formatter: (x) => number(x, 2) };
  return {
    min,
    max,
    axisLabel: { ...label, customValues: ticks },
    axisTick: { show: true, customValues: ticks },
  };
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

// a straight line across the picture, at a value of one axis
const rule = (place, lineStyle, more = {}) => ({
  symbol: "none",
  precision: 12,
  animation: false,
  label: { show: false },
  emphasis: { disabled: true },
  data: [place],
  lineStyle,
  ...more,
});

function curveSeries(line, colours) {
  const color = methodColour(line.method, colours);
  const { symbol, label } = methodOf(line.method);
  const points = line.points.filter((p) => p[1] !== null);
  if (!points.length) return [];
  const look = { type: "line", name: label, symbol, symbolSize: 8, itemStyle: { color }, z: 3 };
  if (line.across) {
    const dashed = { color, type: [6, 4], width: 1.8 };
    const across = rule({ yAxis: points[0][1], name: label }, dashed);
    return [{ ...look, data: [], lineStyle: dashed, markLine: across }, band(points, color, true)];
  }
  const hollow = { color: colours.ground, borderColor: color, borderWidth: 1.5 };
  const marks = points.map((p) => ({ value: p, itemStyle: p[5] ? hollow : { color } }));
  return [{ ...look, data: marks, lineStyle: { color, width: 2 } }, band(points, color, false)];
}

builders.curves = (spec, colours, width, alone) => {
  const { x, y, lines, level } = spec.data;
  const series = lines.flatMap((line) => curveSeries(line, colours));
  const seen = lines.flatMap((line) => line.points.flatMap((p) => [p[1], p[2] ?? p[1], p[3] ?? p[1]]));
  const places = lines.filter((line) => !line.across).flatMap((line) => line.points.map((p) => p[0]));
  const shown = seen.filter(Number.isFinite);
  if (level && level.value <= 1.3 * Math.max(...shown) && level.value >= 0.9 * Math.min(...shown)) {
    const text = { formatter: level.text, position: "insideEndTop", color: colours.muted, fontSize: 11 };
    const dotted = { color: colours.muted, type: [2, 3], width: 1.2 };
    const across = rule({ yAxis: level.value }, dotted, { silent: true, label: text });
    series.push({ type: "line", data: [], silent: true, markLine: across });
    seen.push(level.value);
  }
  return {
    option: {
      legend: legend(colours, lines, alone),
      grid: { left: 58, right: 14, top: alone ? 56 : 12, bottom: 46 },
      xAxis: { ...valueAxis(colours, x, 28, places), splitLine: { show: false } },
      yAxis: { ...valueAxis(colours, y, 44, seen), ...(y.zero && !y.log ? { min: 0 } : {}) },
      tooltip: { formatter: (p) => curveTip(p, x, y) },
      series,
    },
    height: alone ? 360 : 240,
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

function frontTip(p, x, y) {
  const head = `<b>${escapeHtml(p.seriesName)}</b>, strength ${number(p.value[2])}`;
  return `${head}<br>${escapeHtml(x.name)} ${number(p.value[0])}<br>${escapeHtml(y.name)} ${number(p.value[1])}`;
}

builders.fronts = (spec, colours, width, alone) => {
  const { x, y, lines, front, target } = spec.data;
  const series = lines.map((line) => {
    const color = methodColour(line.method, colours);
    const { symbol, label } = methodOf(line.method);
    const look = front ? { type: "scatter", symbolSize: 10 } : { type: "line", symbolSize: 7 };
    return {
      ...look,
      name: label,
      data: line.points,
      symbol,
      itemStyle: { color },
      lineStyle: { color, width: 2 },
      z: 3,
    };
  });
  if (front) {
    const lineStyle = { color: colours.muted, width: 1.5, opacity: 0.7 };
    series.push({ type: "line", data: front, silent: true, symbol: "none", step: "end", lineStyle, z: 1 });
  }
  if (Number.isFinite(target)) {
    const dotted = { color: colours.ink, type: [2, 3], width: 1.4 };
    series.push({ type: "line", data: [], markLine: rule({ xAxis: target }, dotted, { silent: true }) });
  }
  const all = lines.flatMap((line) => line.points);
  const right = Math.ceil(1.08 * Math.max(...all.map((p) => p[0]), target ?? 0));
  const places = all.map((p) => p[0]);
  const errors = all.map((p) => p[1]);
  return {
    option: {
      legend: legend(colours, lines, alone),
      grid: { left: 58, right: 14, top: alone ? 56 : 12, bottom: 46 },
      xAxis: {
        ...valueAxis(colours, x, 28, places),
        splitLine: { show: false },
        ...(front ? { min: 0, max: right } : {}),
      },
      yAxis: valueAxis(colours, y, 44, errors),
      tooltip: { formatter: (p) => frontTip(p, x, y) },
      series,
    },
    height: alone ? 360 : 240,
    rows: () => [
      ["method", x.name, y.name, "strength"],
      ...lines.flatMap((line) => line.points.map((p) => [data.methods[line.method].label, ...p])),
    ],
  };
};
