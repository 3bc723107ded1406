import assert from "node:assert/strict";
import { beforeEach, test } from "node:test";

import { h, render } from "../../broadcaster/src/web/assets/elements/dom.js";
import { link, search, secretLink } from "../../broadcaster/src/web/assets/elements/link.js";
import { fold, unanswered } from "../../broadcaster/src/web/assets/instances/fleet.js";
import { Element, install } from "./support/document.js";
import { text } from "./support/tree.js";

install();
/** @type {any} */
let box;
beforeEach(() => { box = new Element("main"); });

const items = (/** @type {string[]} */ ...names) => names.map((name) => h("li", { key: name }, name));
const shown = () => box.childNodes.map((/** @type {Element} */ it) => it.textContent);

test("rows keep their elements when they move", () => {
  render(box, items("a", "b", "c"));
  const before = new Map(box.childNodes.map((/** @type {Element} */ it) => [it.textContent, it]));
  render(box, items("c", "new", "a"));
  assert.deepEqual(shown(), ["c", "new", "a"]);
  for (const name of ["a", "c"]) assert.equal(box.childNodes.find((/** @type {Element} */ it) => it.textContent === name), before.get(name));
});

test("data reaches the page as text, never as markup", () => {
  render(box, h("p", { title: "<b>" }, "<script>alert(1)</script>"));
  assert.equal(box.childNodes[0].childNodes[0].data, "<script>alert(1)</script>");
  assert.equal(box.childNodes[0].attributes.get("title"), "<b>");
});

test("a text changes in place, an attribute that is gone is taken away", () => {
  render(box, h("p", { title: "old", class: "quiet" }, "one"));
  const [p] = box.childNodes;
  render(box, h("p", { class: "quiet" }, "two"));
  assert.equal(box.childNodes[0], p);
  assert.equal(p.textContent, "two");
  assert.deepEqual([...p.attributes], [["class", "quiet"]]);
});

test("nothing is drawn of null, false and empty texts, but zero is", () => {
  render(box, h("p", {}, null, false, "", undefined, [0]));
  assert.equal(box.textContent, "0");
});

test("a field keeps what the view gives it, and only then is written", () => {
  render(box, h("input", { value: "a" }));
  assert.equal(box.childNodes[0].value, "a");
  render(box, h("input", {}));
  assert.equal(box.childNodes[0].value, "");
});

test("an element with a hook belongs to the hook", () => {
  const hook = (/** @type {any} */ element) => { element.value = "filled"; };
  render(box, h("time", { hook }));
  const [first] = box.childNodes;
  assert.equal(first.value, "filled");
  render(box, h("time", {}));
  assert.notEqual(box.childNodes[0], first, "one that a hook has filled was taken for another");
});

test("names in addresses are encoded, empty parameters left out", () => {
  assert.equal(secretLink("team a/db"), "#/secret/team%20a/db");
  assert.equal(link("audit", { secret: "a/b", q: "" }), "#/audit?secret=a%2Fb");
  assert.equal(link("", {}), "#/");
  assert.equal(search({ offset: 0, not_on: null }), "offset=0");
});

test("a service's versions stand on one line, newest first, and mixed lines come first", () => {
  const group = (/** @type {string} */ service, /** @type {number | null} */ version, /** @type {number} */ instances) =>
    ({ service, secret: "payments/db", version, instances, standings: { live: instances } });
  const lines = fold([group("api", 1, 3), group("ledger", 1, 1), group("ledger", 2, 4), group("ledger", null, 1)]);
  assert.deepEqual(lines.map((it) => [it.service, it.instances]), [["ledger", 6], ["api", 3]]);
  assert.deepEqual(lines[0]?.versions.map((it) => it.version), [2, 1, null]);
  assert.equal(lines[0]?.standings.live, 6);
});

test("secrets whose instances are not known are named", () => {
  assert.equal(unanswered({ unanswered: [], unanswered_total: 0 }), null);
  const told = text(unanswered({ unanswered: ["a/b", "c/d"], unanswered_total: 5 }));
  assert.match(told, /The instances of 5 secrets are not shown.*out of service: a\/b, c\/d, and 3 more\./);
});
