// A person at a browser: opens the address that a device flow shows, signs in under a name, and agrees.
//
// Arguments: address with the code, name. The forms are those that oidc-provider shows out of the box.

const [start, name] = process.argv.slice(2);
const cookies = new Map();

async function visit(url, form) {
  for (let hops = 0; hops < 20; hops += 1) {
    const response = await fetch(url, {
      method: form ? "POST" : "GET",
      redirect: "manual",
      headers: { cookie: [...cookies].map(([key, value]) => `${key}=${value}`).join("; ") },
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

// A page's form, with its hidden fields filled in.
function fill({ url, text }, fields) {
  const action = /<form[^>]*action="([^"]+)"/.exec(text);
  if (!action) throw new Error(`no form at ${url}: ${text.slice(0, 400)}`);
  const hidden = [...text.matchAll(/<input[^>]*type="hidden"[^>]*>/g)].map(([input]) => [
    /name="([^"]+)"/.exec(input)[1],
    (/value="([^"]*)"/.exec(input) ?? ["", ""])[1],
  ]);
  return [new URL(action[1], url).href, { ...Object.fromEntries(hidden), ...fields }];
}

let page = await visit(start);
for (let step = 0; step < 6 && page.text.includes("<form"); step += 1) {
  const login = page.text.includes('name="login"') ? { login: name, password: "anything" } : {};
  page = await visit(...fill(page, login));
}
if (page.status !== 200 || page.text.includes("<form")) throw new Error(page.text.slice(0, 400));
