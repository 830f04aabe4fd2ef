(function () {
  "use strict";
  var form = document.getElementById("filters"), list = document.getElementById("list");
  function open(hash) {
    var at = /^#u\d+$/.test(hash) && document.getElementById(hash.slice(1));
    if (!at) return;
    var box = at.closest("details");
    box.hidden = false;
    box.open = true;
    box.scrollIntoView();
    box.querySelector("summary").focus({preventScroll: true});
  }
  window.addEventListener("hashchange", function () { open(location.hash); });
  document.addEventListener("click", function (e) {
    var a = e.target.closest && e.target.closest("a[href^='#u']");
    if (a && a.hash === location.hash) open(a.hash);
  });
  if (!form) return;
  function get(id) { return document.getElementById(id); }
  var rows = Array.prototype.slice.call(list.children);
  var module = get("f-module"), state = get("f-state"), least = get("f-least"), host = get("f-host"), sort = get("f-sort");
  var hint = get("f-hint"), none = get("none");
  rows.forEach(function (r, i) {
    r.place = i;
    r.name = same(r.dataset.module);
    r.ns = Number(r.dataset.ns);
    r.seq = Number(r.dataset.seq);
    var t = r.querySelector("summary time");
    r.at = t ? t.dateTime : "";
  });
  function same(name) { return name.trim().toLowerCase().replace(/-/g, "_"); }
  // A name with * or ? has to fit as a whole, another may stand anywhere.
  function matcher(text) {
    text = same(text);
    if (!/[*?]/.test(text)) return function (name) { return name.indexOf(text) >= 0; };
    var all = new RegExp("^" + text.replace(/[.+^${}()|[\]\\]/g, "\\$&").replace(/\*+/g, ".*").replace(/\?/g, ".") + "$");
    return function (name) { return all.test(name); };
  }
  // A number without a unit is in milliseconds.
  function nanoseconds(text) {
    var units = {ns: 1, us: 1e3, "µs": 1e3, "μs": 1e3, ms: 1e6, "": 1e6, s: 1e9, min: 60e9, m: 60e9, h: 3600e9};
    var m = /^\s*(\d+(?:[.,]\d+)?|[.,]\d+)?\s*([a-zµμ]*)\s*$/i.exec(text);
    if (!m || (!m[1] && m[2]) || !units.hasOwnProperty(m[2].toLowerCase())) return NaN;
    return m[1] ? Number(m[1].replace(",", ".")) * units[m[2].toLowerCase()] : 0;
  }
  function text(a, b) { return a < b ? -1 : a > b ? 1 : 0; }
  var orders = {
    grave: function (a, b) { return a.place - b.place; },
    slow: function (a, b) { return b.ns - a.ns || a.place - b.place; },
    time: function (a, b) { return text(a.at, b.at) || a.seq - b.seq; },
    late: function (a, b) { return text(b.at, a.at) || b.seq - a.seq; },
    module: function (a, b) { return text(a.name, b.name) || b.ns - a.ns; }
  };
  function filter() {
    var fits = matcher(module.value), ns = nanoseconds(least.value), shown = 0;
    var wrong = isNaN(ns);
    least.setAttribute("aria-invalid", wrong);
    rows.forEach(function (r) {
      var ok = fits(r.name) && (!state.value || r.dataset.state === state.value) && (wrong || r.ns >= ns) && (!host || !host.value || r.dataset.host === host.value);
      r.hidden = !ok;
      shown += ok;
    });
    none.hidden = shown > 0;
    hint.textContent = wrong ? "“" + least.value + "” is no duration: write 250 ms, 1.5 s or 2 min" : shown === rows.length ? rows.length + " shown" : shown + " of " + rows.length + " shown";
  }
  function arrange() {
    var all = document.createDocumentFragment();
    rows.slice().sort(orders[sort.value] || orders.grave).forEach(function (r) { all.appendChild(r); });
    list.appendChild(all);
  }
  form.hidden = false;
  form.addEventListener("input", filter);
  form.addEventListener("submit", function (e) { e.preventDefault(); });
  form.addEventListener("reset", function () { setTimeout(function () { filter(); arrange(); }); });
  sort.addEventListener("change", arrange);
  get("f-close").addEventListener("click", function () { rows.forEach(function (r) { r.open = false; }); });
  Array.prototype.forEach.call(document.querySelectorAll("[data-show]"), function (a) {
    a.addEventListener("click", function () { state.value = a.dataset.show; filter(); });
  });
  filter();
  if (sort.value !== "grave") arrange(); // what the browser kept from the last visit
  open(location.hash);
})();
