// As much of a browser as the tests need: cookies, redirects, forms.

const cookies = new Map();

// Opens an address, or sends a form there, and follows where it leads.
export async function visit(url, form) {
  for (let hops = 0; hops < 20; hops += 1) {
    const headers = { cookie: [...cookies].map(([key, value]) => `${key}=${value}`).join("; ") };
    if (form) headers.origin = new URL(url).origin;
    const response = await fetch(url, {
      method: form ? "POST" : "GET",
      redirect: "manual",
      headers,
      body: form ? new URLSearchParams(form) : undefined,
    });
    for (const cookie of response.headers.getSetCookie()) {
      const [pair] = cookie.split(";");
      const at = pair.indexOf("=");
      cookies.set(pair.slice(0, at), pair.slice(at + 1));
    }
    const next = response.headers.get("location");
    if (!next) return { url, text: await response.text(), status: response.status };
    url = new URL(next, url).href;
    form = undefined;
  }
  throw new Error("redirected in circles");
}

// A page's first form, with its hidden fields filled in.
export function fill({ url, text }, fields) {
  const form = /<form[^>]*action="([^"]+)"[^]*?<\/form>/.exec(text);
  if (!form) throw new Error(`no form at ${url}: ${text.slice(0, 400)}`);
  const hidden = [...form[0].matchAll(/<input[^>]*type="hidden"[^>]*>/g)].map(([input]) => [
    /name="([^"]+)"/.exec(input)[1],
    (/value="([^"]*)"/.exec(input) ?? ["", ""])[1],
  ]);
  return [new URL(form[1], url).href, { ...Object.fromEntries(hidden), ...fields }];
}

// Signs in under this name and agrees, as long as the issuer's own forms come; the page after them. The forms are those
// that oidc-provider shows out of the box.
export async function signIn(start, name) {
  let page = await visit(start);
  const issuers = (url) => /\/(interaction|device)(\/|$)/.test(new URL(url).pathname);
  for (let step = 0; step < 6 && issuers(page.url) && page.text.includes("<form"); step += 1) {
    const login = page.text.includes('name="login"') ? { login: name, password: "anything" } : {};
    page = await visit(...fill(page, login));
  }
  return page;
}
