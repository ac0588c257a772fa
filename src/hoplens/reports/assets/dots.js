// Dots with intervals: every method on every task.
/* global data, builders, axis, number, escapeHtml, shorten, methodOf, methodColour, valueAxis, legend */

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
      xAxis: { ...valueAxis(colours, x, 28, values), ...(x.zero && !x.log ? { min: 0 } : {}) },
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
