// Views are written as trees of plain objects and patched into the page, so that a live page keeps focus, selection,
// scroll position and what is typed. Data reaches the page as text nodes and attributes only, never as markup.

/**
 * @typedef {Record<string, any>} Props
 * @typedef {{ tag: string, props: Props, key: unknown, children: Tree[], dom?: any }} Element
 * @typedef {{ tag?: undefined, props?: undefined, key?: undefined, text: string, dom?: any }} Text
 * @typedef {Element | Text} Tree
 * @typedef {Tree | string | number | null | undefined | false | Children} Child
 */

/** @typedef {readonly Child[]} Children */

/**
 * An element: `h("p", { class: "quiet" }, "text", [more])`. Null, false and undefined children are left out.
 * @param {string} tag
 * @param {Props | null} props
 * @param {...Child} children
 * @returns {Element}
 */
export function h(tag, props, ...children) {
  return { tag, props: props ?? {}, key: props?.key, children: flat(children, []) };
}

/**
 * @param {readonly Child[]} children
 * @param {Tree[]} into
 */
function flat(children, into) {
  for (const child of children) {
    if (Array.isArray(child)) flat(child, into);
    else if (child !== null && child !== undefined && child !== false && child !== "") {
      into.push(typeof child === "object" ? /** @type {Tree} */ (child) : { text: String(child) });
    }
  }
  return into;
}

/** What was patched into an element last. @type {WeakMap<any, Tree[]>} */
const shown = new WeakMap();

/**
 * Makes the children of `container` those.
 * @param {globalThis.Element} container
 * @param {...Child} children
 */
export function render(container, ...children) {
  const focused = /** @type {HTMLElement | null} */ (document.activeElement);
  patchChildren(container, flat(children, []));
  // A row that moves is taken out and put back, which loses the focus.
  if (focused && focused !== document.activeElement && focused.isConnected) focused.focus({ preventScroll: true });
}

/**
 * @param {any} parent
 * @param {Tree[]} next
 */
function patchChildren(parent, next) {
  const old = shown.get(parent);
  if (old === undefined) parent.replaceChildren();
  const { was, removed } = match(old ?? [], next);
  for (const node of removed) node.dom.remove();
  let cursor = parent.firstChild;
  for (const node of next) {
    const before = was.get(node);
    if (before) update(node, before);
    else create(node);
    if (node.dom === cursor) cursor = cursor.nextSibling;
    else parent.insertBefore(node.dom, cursor);
    node.props?.hook?.(node.dom);
  }
  shown.set(parent, next);
}

/**
 * Which of the old trees becomes which of the new ones: by key, and the rest in order.
 * @param {Tree[]} old
 * @param {Tree[]} next
 */
function match(old, next) {
  /** @type {Map<unknown, Tree>} */
  const keyed = new Map();
  /** @type {Tree[]} */
  const loose = [];
  for (const node of old) {
    if (node.key !== undefined) keyed.set(node.key, node);
    else loose.push(node);
  }
  let at = 0;
  /** @type {Set<Tree>} */
  const reused = new Set();
  /** @type {Map<Tree, Tree>} */
  const was = new Map();
  for (const node of next) {
    let found;
    if (node.key !== undefined) found = keyed.get(node.key);
    else {
      // What does not fit is passed over and removed.
      let look = at;
      while (look < loose.length && !isLike(/** @type {Tree} */ (loose[look]), node)) look += 1;
      if (look < loose.length) {
        found = loose[look];
        at = look + 1;
      }
    }
    if (found && isLike(found, node) && !reused.has(found)) {
      reused.add(found);
      node.dom = found.dom;
      was.set(node, found);
    }
  }
  return { was, removed: old.filter((node) => !reused.has(node)) };
}

/**
 * Whether one element can become the other. One that a hook looks after has contents that are not known here.
 * @param {Tree} was
 * @param {Tree} node
 */
function isLike(was, node) {
  return was.tag === node.tag && was.props?.hook === node.props?.hook;
}

/** @param {Tree} node */
function create(node) {
  if (node.tag === undefined) {
    node.dom = document.createTextNode(node.text);
    return;
  }
  node.dom = document.createElement(node.tag);
  for (const name in node.props) set(node.dom, name, node.props[name]);
  patchChildren(node.dom, node.children);
}

/**
 * @param {Tree} node
 * @param {Tree} was
 */
function update(node, was) {
  // The very same tree: a view that keeps one says that nothing in it has changed.
  if (node === was) return;
  if (node.tag === undefined || was.tag === undefined) {
    if (node.tag === undefined && was.tag === undefined && node.text !== was.text) node.dom.data = node.text;
    return;
  }
  for (const name in was.props) if (!(name in node.props)) set(node.dom, name, null);
  for (const name in node.props) {
    const value = node.props[name];
    if (value !== was.props[name] || name === "style") set(node.dom, name, value);
  }
  // An element with a hook and no children is filled by the hook alone.
  if (node.children.length > 0 || was.children.length > 0) patchChildren(node.dom, node.children);
}

/**
 * @param {any} element
 * @param {string} name
 * @param {any} value
 */
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
