// Addresses of the dashboard's own pages.

/** @param {string} secret */
export const secretLink = (secret) => `#/secret/${secret.split("/").map(encodeURIComponent).join("/")}`;

/**
 * `#/audit?secret=…`; empty parameters are left out.
 * @param {string} route
 * @param {Record<string, string | number | null | undefined>} parameters
 */
export function link(route, parameters = {}) {
  const query = search(parameters);
  return query ? `#/${route}?${query}` : `#/${route}`;
}

/**
 * Parameters as an address carries them; empty ones are left out.
 * @param {Record<string, string | number | null | undefined>} parameters
 */
export function search(parameters) {
  const query = new URLSearchParams();
  for (const [name, value] of Object.entries(parameters)) {
    if (value !== null && value !== undefined && value !== "") query.set(name, String(value));
  }
  return query.toString();
}
