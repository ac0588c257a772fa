// The slider, the play button, the toggle and the choice of network.
/* global data, state, view, calm, redraw, hopName, percent, strongestText, MODE_NAMES */

function chooseHop(k) {
  state.hop = k;
  const v = view();
  const slider = document.getElementById("hop");
  slider.max = v.hops.length - 1;
  slider.value = k;
  slider.setAttribute("aria-valuetext", hopName(v, k));
  document.getElementById("readout").textContent =
    `hop ${v.hops[k]}` + (v.lags ? ` · lag ${v.lags[k]}` : "");
  const total = v.mass.reduce((a, b) => a + b, 0) || 1;
  document.getElementById("say").textContent =
    `${percent(v.mass[k] / total)} of all influence has this length. ${strongestText(v, k)}`;
  redraw((f) => ["map", "graph", "hops", "overview"].includes(f.spec.kind));
}

function chooseMode(mode) {
  state.mode = mode;
  document.querySelector(`input[name=mode][value=${mode}]`).checked = true;
  document.querySelectorAll(".unit").forEach((place) => (place.textContent = MODE_NAMES[mode]));
  redraw((f) => ["map", "graph", "overview"].includes(f.spec.kind), { fresh: true });
}

function chooseView(n) {
  state.view = n;
  const v = view();
  const bent = "colours follow the square root, so that hops of many weak pathways can be seen too";
  const notes = [v.note, v.gamma < 1 ? bent : ""].filter(Boolean);
  document.querySelector(".map-note").textContent = notes.join("; ");
  document.querySelector(".pairs-note").textContent = v.pairsNote;
  chooseMode(v.mode);
  chooseHop(v.start);
}

function connect() {
  const play = document.getElementById("play");
  let timer = 0;
  const stop = () => {
    clearInterval(timer);
    timer = 0;
    play.textContent = "▶ Play";
    play.setAttribute("aria-pressed", "false");
  };
  play.addEventListener("click", () => {
    if (timer) return stop();
    play.textContent = "❚❚ Pause";
    play.setAttribute("aria-pressed", "true");
    const length = () => view().hops.length;
    if (state.hop === length() - 1) chooseHop(0);
    timer = setInterval(
      () => (state.hop + 1 < length() ? chooseHop(state.hop + 1) : stop()),
      calm.matches ? 1500 : 700,
    );
  });
  document.getElementById("hop").addEventListener("input", (event) => chooseHop(Number(event.target.value)));
  document
    .querySelectorAll("input[name=mode]")
    .forEach((input) => input.addEventListener("change", () => chooseMode(input.value)));
  document
    .getElementById("view")
    ?.addEventListener("change", (event) => chooseView(Number(event.target.value)));
  chooseView(data.view);
}
