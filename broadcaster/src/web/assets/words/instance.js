// Instances by name: `payments-api/pod-1#8a7b1aa3`, with the first eight digits of the incarnation.

/**
 * A name as blockers carry it, in its parts. Null: the blocker names something else, such as an operator or a session.
 * @param {string | null} name
 */
export function parseInstance(name) {
  const match = /^([^/]+)\/(.+)#([0-9a-f]{8})$/.exec(name ?? "");
  return match && { service: String(match[1]), instance: String(match[2]), incarnation: String(match[3]) };
}

/** @param {{ service: string, instance: string, incarnation: string }} it */
export function instanceName(it) {
  return `${it.service}/${it.instance}#${it.incarnation.slice(0, 8)}`;
}

/**
 * Unique, with the whole incarnation.
 * @param {{ service: string, instance: string, incarnation: string }} it
 */
export function instanceKey(it) {
  return `${it.service}/${it.instance}/${it.incarnation}`;
}
