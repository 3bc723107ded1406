// What the page about one secret knows. Its parts draw from it.

/**
 * An instance as the broadcaster knew it at `taken`, in Unix milliseconds.
 * @typedef {Api.InstanceStatus & { taken: number }} Known
 */

/**
 * @typedef {object} Page
 * @property {Api.SecretStatus} status
 * @property {Map<string, Known>} instances those that are waited for, by their names in blockers
 * @property {Set<Api.Condition>} open the conditions whose blockers are all shown
 */

/**
 * Instances of an answer, each with the moment of the answer.
 * @param {Api.PageView} answer
 * @returns {Known[]}
 */
export function known(answer) {
  const taken = Date.parse(answer.taken_at);
  return answer.instances.map((it) => ({ ...it, taken }));
}
