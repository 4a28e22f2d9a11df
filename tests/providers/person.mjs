// A person at a browser: opens the address that a device flow shows, signs in under a name, and agrees.
//
// Arguments: address with the code, name.

import { signIn } from "./browser.mjs";

const [start, name] = process.argv.slice(2);
const page = await signIn(start, name);
if (page.status !== 200 || page.text.includes("<form")) throw new Error(page.text.slice(0, 400));
