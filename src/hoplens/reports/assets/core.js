// Glue between the data of the page and ECharts: colours, drawing, saving. Figures are built elsewhere.
/* global echarts, builders, connect */

const data = JSON.parse(document.getElementById("data").textContent);
const state = { view: data.view, hop: 0, mode: "signed" };
const darkMode = matchMedia("(prefers-color-scheme: dark)");
const printMode = matchMedia("print");
const calm = matchMedia("(prefers-reduced-motion: reduce)");
const FONT = 'system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif';
const PRINT_WIDTH = { wide: 660, half: 322 };
let printing = false;

const palette = (light) =>
  light || printing || printMode.matches || !darkMode.matches ? data.themes.light : data.themes.dark;
const escapeHtml = (text) => String(text).replace(/[&<>"']/g, (c) => `&#${c.charCodeAt(0)};`);

// numbers as readers see them: a true minus, three digits, powers of ten where needed
function number(value, digits = 3) {
  if (value === null || value === undefined || !Number.isFinite(value)) return "–";
  if (value === 0) return "0";
  const size = Math.abs(value);
  if (size >= 1e5 || size < 1e-3) {
    const [mantissa, power] = value.toExponential(digits - 1).split("e");
    const raised = String(Number(power)).replace(/./g, (c) => "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"["-0123456789".indexOf(c)]);
    const short = String(Number(mantissa));
    return `${short === "1" ? "" : `${short} × `}10${raised}`.replace(/^-/, "−");
  }
  return String(Number(value.toPrecision(digits))).replace("-", "−");
}
const signed = (value) => (value > 0 ? "+" : "") + number(value);
const percent = (value) => {
  const size = 100 * value;
  return `${size === 0 ? 0 : size < 0.1 ? "< 0.1" : size < 9.95 ? size.toFixed(1) : size.toFixed(0)} %`;
};
const shorten = (text, most) => {
  const letters = [...String(text)];
  if (letters.length <= most) return letters.join("");
  const tail = Math.floor(most / 2) - 1;
  return `${letters.slice(0, most - 1 - tail).join("")}…${letters.slice(-tail).join("")}`;
};
// an upper bound of the width of the longest name in pixels
const widest = (names, most, size = 12) =>
  0.6 * size * Math.max(1, ...names.map((name) => [...shorten(name, most)].length));

function common(colours) {
  return {
    animationDuration: 0,
    animationDurationUpdate: calm.matches || printing ? 0 : 350,
    backgroundColor: "transparent",
    textStyle: { fontFamily: FONT, color: colours.ink, fontSize: 12 },
    tooltip: {
      confine: true,
      backgroundColor: colours.panel,
      borderColor: colours.rule,
      textStyle: { color: colours.ink, fontSize: 13, fontFamily: FONT },
      extraCssText: "max-width: 22rem; white-space: normal; font-variant-numeric: tabular-nums",
      transitionDuration: 0,
    },
  };
}

function axis(colours, name, extra = {}) {
  return {
    name,
    nameLocation: "middle",
    nameTextStyle: { color: colours.muted, fontSize: 12 },
    axisLabel: { color: colours.ink, fontSize: 12, hideOverlap: true },
    axisLine: { show: true, lineStyle: { color: colours.muted } },
    axisTick: { show: false },
    splitLine: { show: false, lineStyle: { color: colours.rule } },
    ...extra,
  };
}

const figures = [...document.querySelectorAll("figure[data-figure]")].map((element) => ({
  element,
  spec: data.figures[element.dataset.figure],
  place: element.querySelector(".chart"),
}));

function build(figure, { width, light = false, alone = false } = {}) {
  const colours = palette(light);
  const room = width ?? (printing ? PRINT_WIDTH[figure.element.dataset.size] : figure.place.clientWidth);
  const built = builders[figure.spec.kind](figure.spec, colours, room, alone);
  const shared = common(colours);
  const tooltip = { ...shared.tooltip, ...built.option.tooltip };
  return { width: room, ...built, option: { ...shared, ...built.option, tooltip } };
}

function draw(figure, { fresh = false } = {}) {
  const built = build(figure);
  if (!built.width) return;
  figure.place.style.height = `${built.height}px`;
  const size = { width: built.width, height: built.height };
  if (!figure.chart) {
    figure.chart = echarts.init(figure.place, null, { renderer: "svg", ...size });
    figure.chart.on("click", (event) => figure.built.choose?.(event));
    figure.place.removeAttribute("tabindex");
  } else if (figure.chart.getWidth() !== built.width || figure.chart.getHeight() !== built.height) {
    figure.chart.resize(size);
  }
  figure.built = built;
  figure.chart.setOption(built.option, { notMerge: fresh });
  figure.place.setAttribute("role", "img");
  figure.place.setAttribute("aria-label", built.label ?? figure.spec.label);
}

const redraw = (which, options) =>
  figures.filter((f) => f.chart && which(f)).forEach((f) => draw(f, options));

// saving: always light on white, as a paper needs it, with the legend inside
function offscreen(figure, renderer) {
  const width = Math.max(560, figure.place.clientWidth);
  const built = build(figure, { width, light: true, alone: true });
  const place = document.createElement("div");
  const chart = echarts.init(place, null, { renderer, width, height: built.height, devicePixelRatio: 3 });
  chart.setOption({ ...built.option, animation: false, backgroundColor: "#ffffff" });
  return chart;
}

const makers = {
  SVG: (figure) => {
    const chart = offscreen(figure, "svg");
    const text = chart.renderToSVGString();
    chart.dispose();
    return new Blob([text], { type: "image/svg+xml" });
  },
  PNG: (figure) => {
    const chart = offscreen(figure, "canvas");
    const url = chart.getDataURL({ type: "png", pixelRatio: 3, backgroundColor: "#ffffff" });
    chart.dispose();
    const bytes = Uint8Array.from(atob(url.split(",")[1]), (c) => c.charCodeAt(0));
    return new Blob([bytes], { type: "image/png" });
  },
  CSV: (figure) => csv(build(figure, { light: true }).rows()),
};

function csv(rows) {
  const cell = (value) => {
    const text = value === null || value === undefined ? "" : String(value);
    return /[",\n\r]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
  };
  return new Blob([rows.map((row) => row.map(cell).join(",")).join("\r\n") + "\r\n"], { type: "text/csv" });
}

function save(blob, name) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blob);
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10000);
}

function button(text, label, action) {
  const made = document.createElement("button");
  made.type = "button";
  made.textContent = text;
  made.setAttribute("aria-label", label);
  made.addEventListener("click", action);
  return made;
}

function addButtons(figure) {
  const bar = figure.element.querySelector(".save");
  const name = figure.element.dataset.figure;
  for (const kind of ["SVG", "PNG", "CSV"]) {
    const label = `Save ${figure.spec.title || name} as ${kind}`;
    bar.append(
      button(kind, label, () => save(makers[kind](figure), `hoplens-${name}.${kind.toLowerCase()}`)),
    );
  }
}

// tables: exact numbers where a cell has them
function addTableButtons() {
  for (const bar of document.querySelectorAll("[data-saves]")) {
    const table = document.getElementById(bar.dataset.saves);
    bar.append(
      button("CSV", `Save the table ${table.id} as CSV`, () => {
        const rows = [...table.rows].map((row) =>
          [...row.cells].map((c) => c.dataset.value ?? c.innerText.replace(/\s+/g, " ").trim()),
        );
        save(csv(rows), `hoplens-${table.id}.csv`);
      }),
    );
  }
}

function start() {
  for (const figure of figures) {
    figure.place.style.minHeight = "12rem";
    addButtons(figure);
  }
  addTableButtons();
  if (data.views.length) connect();
  // a study has many panels: those far below are drawn when they come near
  const near = new IntersectionObserver(
    (entries) => {
      for (const entry of entries.filter((e) => e.isIntersecting)) {
        near.unobserve(entry.target);
        draw(figures.find((f) => f.place === entry.target));
        entry.target.style.minHeight = "";
      }
    },
    { rootMargin: "600px" },
  );
  figures.forEach((figure) => near.observe(figure.place));
  let timer = 0;
  new ResizeObserver(() => {
    clearTimeout(timer);
    timer = setTimeout(() => !printing && redraw((f) => f.chart.getWidth() !== f.place.clientWidth), 120);
  }).observe(document.querySelector("main"));
  darkMode.addEventListener("change", () => redraw(() => true, { fresh: true }));
  const print = (on) => {
    printing = on;
    figures.forEach((figure) => draw(figure, { fresh: true }));
  };
  printMode.addEventListener("change", (event) => print(event.matches));
  addEventListener("beforeprint", () => print(true));
  addEventListener("afterprint", () => print(false));
}
