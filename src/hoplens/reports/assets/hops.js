// Figures over hops: influence by hop, and how far the weights agree with the flow on data.
/* global data, state, view, builders, axis, number, percent, hopName, hopTick, hopAxis, chooseHop */

builders.hops = (spec, colours, width) => {
  const v = view();
  const total = v.mass.reduce((a, b) => a + b, 0) || 1;
  const log = v.mode === "share"; // raw weights grow: only powers of ten tell the hops apart
  const values = v.mass.map((m) => (log ? m || null : m / total));
  const top = [0.02, 0.04, 0.1, 0.2, 0.4, 0.6, 0.8, 1].find((t) => Math.max(...v.mass) / total <= t) ?? 1;
  const option = {
    grid: { left: 58, right: 8, top: 14, bottom: 44 },
    xAxis: axis(colours, hopAxis(v), {
      type: "category",
      data: v.hops.map((_, k) => hopTick(v, k)),
      nameGap: 28,
    }),
    yAxis: axis(colours, log ? "sum of |weights|" : "influence", {
      type: log ? "log" : "value",
      nameGap: 46,
      ...(log ? { splitNumber: 3 } : { max: top, interval: top / 2 }),
      axisLabel: {
        color: colours.ink,
        fontSize: 12,
        formatter: log ? (x) => number(x) : (x) => `${Math.round(100 * x)} %`,
      },
      axisLine: { show: false },
      splitLine: { show: true, lineStyle: { color: colours.rule } },
    }),
    tooltip: {
      formatter: (p) =>
        `<b>${hopName(v, p.dataIndex)}</b><br>sum of |weights| ${number(v.mass[p.dataIndex])}<br>${percent(v.mass[p.dataIndex] / total)} of all influence`,
    },
    series: {
      type: "bar",
      barCategoryGap: v.hops.length > 60 ? "0%" : "28%",
      data: values.map((value, k) => ({
        value,
        itemStyle: { color: k === state.hop ? colours.strong : colours.faint },
      })),
    },
  };
  return {
    option,
    height: 168,
    choose: (event) => chooseHop(event.dataIndex),
    label: `Influence by hop. ${v.hops
      .map((_, k) => `${hopName(v, k)} ${percent(v.mass[k] / total)}`)
      .slice(0, 24)
      .join(", ")}.`,
    rows: () => [
      ["hop", "lag", "sum_of_magnitudes", "share"],
      ...v.hops.map((hop, k) => [hop, v.lags ? v.lags[k] : "", v.mass[k], v.mass[k] / total]),
    ],
  };
};

builders.fidelity = (spec, colours) => {
  const f = data.fidelity;
  const band = (mean, spread, color, dash) => [
    {
      type: "line",
      name: color.name,
      data: mean.map((m, n) => [f.hops[n], m, spread[n]]),
      symbol: color.symbol,
      symbolSize: 7,
      lineStyle: { color: color.value, width: 2, type: dash },
      itemStyle: { color: color.value },
    },
    {
      type: "custom",
      silent: true,
      itemStyle: { color: color.value },
      data: mean.map((m, n) => [
        f.hops[n],
        m === null ? NaN : m - spread[n],
        m === null ? NaN : m + spread[n],
      ]),
      renderItem: whisker,
    },
  ];
  const option = {
    grid: { left: 58, right: 12, top: 34, bottom: 44 },
    legend: {
      data: ["correlation", "relative error"],
      top: 0,
      left: 50,
      textStyle: { color: colours.ink, fontSize: 12 },
      itemHeight: 8,
    },
    xAxis: axis(colours, "hop", {
      type: "value",
      min: f.hops[0] - 0.5,
      max: f.hops[f.hops.length - 1] + 0.5,
      minInterval: 1,
      nameGap: 28,
      axisLabel: { color: colours.ink, showMinLabel: false, showMaxLabel: false },
    }),
    yAxis: axis(colours, "", {
      type: "value",
      splitLine: { show: true, lineStyle: { color: colours.rule } },
      axisLine: { show: false },
    }),
    tooltip: {
      trigger: "item",
      formatter: (p) =>
        `<b>hop ${p.value[0]}</b><br>${p.seriesName} ${number(p.value[1])} ± ${number(p.value[2])}`,
    },
    series: [
      ...band(
        f.correlation,
        f.correlationSpread,
        { name: "correlation", value: colours.negative, symbol: "circle" },
        "solid",
      ),
      ...band(
        f.error,
        f.errorSpread,
        { name: "relative error", value: colours.positive, symbol: "diamond" },
        "dashed",
      ),
    ],
  };
  return {
    option,
    height: 260,
    label: "Agreement of the weights with the flow on data, by hop.",
    rows: () => [
      ["hop", "correlation", "spread", "relative_error", "spread"],
      ...f.hops.map((hop, n) => [
        hop,
        f.correlation[n],
        f.correlationSpread[n],
        f.error[n],
        f.errorSpread[n],
      ]),
    ],
  };
};

function whisker(params, api) {
  const [x, low] = api.coord([api.value(0), api.value(1)]);
  const [, high] = api.coord([api.value(0), api.value(2)]);
  if (!Number.isFinite(low) || !Number.isFinite(high)) return null;
  return {
    type: "line",
    shape: { x1: x, y1: low, x2: x, y2: high },
    style: { stroke: api.visual("color"), lineWidth: 1.2, opacity: 0.6 },
  };
}
