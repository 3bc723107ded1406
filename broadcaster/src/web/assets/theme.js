// Loaded before anything is painted, so that a chosen theme does not flash in the other one first.
"use strict";
(() => {
  let chosen = null;
  try {
    chosen = localStorage.getItem("rotacast-theme");
  } catch {
    // Storage is switched off: the system's theme it is.
  }
  if (chosen === "dark" || chosen === "light") document.documentElement.dataset.theme = chosen;
})();
