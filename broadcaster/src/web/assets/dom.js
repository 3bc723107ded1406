// Views are written as trees of plain objects and patched into the page, so that a live page keeps focus, selection,
// scroll position and what is typed. Data reaches the page as text nodes and attributes only, never as markup.

/** An element: `h("p", { class: "quiet" }, "text", [more])`. Null, false and undefined children are left out. */
export function h(tag, props, ...children) {
  return { tag, props: props ?? {}, key: props?.key, children: flat(children, []) };
}

function flat(children, into) {
  for (const child of children) {
    if (Array.isArray(child)) flat(child, into);
    else if (child !== null && child !== undefined && child !== false && child !== "") {
      into.push(typeof child === "object" ? child : { text: String(child) });
    }
  }
  return into;
}

const SHOWN = Symbol("what was patched in last");

/** Makes the children of `container` those. */
export function render(container, ...children) {
  const focused = document.activeElement;
  patchChildren(container, flat(children, []));
  // A row that moves is taken out and put back, which loses the focus.
  if (focused && focused !== document.activeElement && focused.isConnected) focused.focus({ preventScroll: true });
}

function patchChildren(parent, next) {
  if (parent[SHOWN] === undefined) parent.replaceChildren();
  const old = parent[SHOWN] ?? [];
  const keyed = new Map();
  const loose = [];
  for (const node of old) {
    if (node.key !== undefined) keyed.set(node.key, node);
    else loose.push(node);
  }
  let at = 0;
  const reused = new Set();
  const was = new Map();
  for (const node of next) {
    let match;
    if (node.key !== undefined) match = keyed.get(node.key);
    else {
      // In order; what does not fit is passed over and removed.
      let look = at;
      while (look < loose.length && !isLike(loose[look], node)) look += 1;
      if (look < loose.length) {
        match = loose[look];
        at = look + 1;
      }
    }
    if (match && isLike(match, node) && !reused.has(match)) {
      reused.add(match);
      node.dom = match.dom;
      was.set(node, match);
    }
  }
  for (const node of old) if (!reused.has(node)) node.dom.remove();
  let cursor = parent.firstChild;
  for (const node of next) {
    if (was.has(node)) update(node, was.get(node));
    else create(node);
    if (node.dom === cursor) cursor = cursor.nextSibling;
    else parent.insertBefore(node.dom, cursor);
    node.props?.hook?.(node.dom);
  }
  parent[SHOWN] = next;
}

/** Whether one element can become the other. One that a hook looks after has contents that are not known here. */
function isLike(was, node) {
  return was.tag === node.tag && was.props?.hook === node.props?.hook;
}

function create(node) {
  if (node.tag === undefined) {
    node.dom = document.createTextNode(node.text);
    return;
  }
  node.dom = document.createElement(node.tag);
  for (const name in node.props) set(node.dom, name, node.props[name]);
  patchChildren(node.dom, node.children);
}

function update(node, was) {
  // The very same tree: whoever keeps one says that nothing in it has changed.
  if (node === was) return;
  if (node.tag === undefined) {
    if (node.text !== was.text) node.dom.data = node.text;
    return;
  }
  for (const name in was.props) if (!(name in node.props)) set(node.dom, name, null);
  for (const name in node.props) {
    const value = node.props[name];
    if (value !== was.props[name] || name === "style") set(node.dom, name, value);
  }
  // Whoever wants to look after an element alone gives it no children and a hook.
  if (node.children.length > 0 || was.children.length > 0) patchChildren(node.dom, node.children);
}

function set(element, name, value) {
  if (name === "key" || name === "hook") return;
  if (name.startsWith("on")) element[name] = value ?? null;
  else if (name === "style") {
    // Property by property: the content security policy forbids style attributes.
    for (const property in value ?? {}) {
      if (element.style.getPropertyValue(property) !== value[property]) {
        element.style.setProperty(property, value[property]);
      }
    }
  } else if (name === "value" || name === "checked" || name === "disabled" || name === "indeterminate") {
    const wanted = value ?? (name === "value" ? "" : false);
    if (element[name] !== wanted) element[name] = wanted;
  } else if (value === null || value === undefined || value === false) element.removeAttribute(name);
  else element.setAttribute(name, value === true ? "" : String(value));
}
