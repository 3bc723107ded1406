// As much of a document as `render` needs: elements with children, text and attributes.

class Node {
  /** @type {Node | null} */
  parent = null;
  /** @type {Node[]} */
  childNodes = [];

  get firstChild() { return this.childNodes[0] ?? null; }
  get nextSibling() {
    const siblings = this.parent?.childNodes ?? [];
    return siblings[siblings.indexOf(this) + 1] ?? null;
  }
  get isConnected() { return true; }

  remove() {
    if (this.parent) this.parent.childNodes = this.parent.childNodes.filter((it) => it !== this);
    this.parent = null;
  }

  replaceChildren() {
    for (const child of [...this.childNodes]) child.remove();
  }

  /**
   * @param {Node} node
   * @param {Node | null} before
   */
  insertBefore(node, before) {
    node.remove();
    const at = before ? this.childNodes.indexOf(before) : this.childNodes.length;
    this.childNodes.splice(at, 0, node);
    node.parent = this;
  }
}

export class Element extends Node {
  /** @type {Map<string, string>} */
  attributes = new Map();
  /** @type {unknown} */
  value = undefined;

  /** @param {string} tag */
  constructor(tag) {
    super();
    this.tag = tag;
  }

  /**
   * @param {string} name
   * @param {string} value
   */
  setAttribute(name, value) { this.attributes.set(name, value); }
  /** @param {string} name */
  removeAttribute(name) { this.attributes.delete(name); }

  /** @returns {string} */
  get textContent() {
    return this.childNodes.map((it) => (it instanceof Text ? it.data : /** @type {Element} */ (it).textContent)).join("");
  }
}

export class Text extends Node {
  /** @param {string} data */
  constructor(data) {
    super();
    this.data = data;
  }
}

/** Puts the document where scripts look for it. */
export function install() {
  Object.assign(globalThis, {
    document: {
      activeElement: null,
      createElement: (/** @type {string} */ tag) => new Element(tag),
      createTextNode: (/** @type {string} */ data) => new Text(data),
    },
  });
}
