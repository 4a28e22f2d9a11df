// A person at a browser who opens a question's link, signs in under a name, and answers.
//
// Arguments: link, name, answer, reason. Prints the page with the question, a line of dashes, and the page after the answer.

import { fill, signIn, visit } from "./browser.mjs";

const [link, name, answer, reason] = process.argv.slice(2);
const page = await signIn(link, name);
console.log(page.text);
console.log("----");
if (page.status === 200) console.log((await visit(...fill(page, { answer, reason }))).text);
