/** Text that is still growing is shown without half-written marks. */

import assert from "node:assert/strict";
import { test } from "node:test";

import { settle } from "../../chat/assets/markdown.js";

const shown = {
  "plain words": "plain words",
  "so **bold": "so **bold**",
  "so **bold*": "so **bold**",
  "so **": "so ",
  "so *slanted": "so *slanted*",
  "* an item": "* an item",
  "* an *item": "* an *item*",
  "run `code": "run `code`",
  "run `a * b": "run `a * b`",
  "~~gone": "~~gone~~",
  "see [the page": "see the page",
  "see [the page](https://exam": "see the page",
  "see ![a picture](https://exam": "see a picture",
  "see [the page](https://example.com)": "see [the page](https://example.com)",
  "A title\n--": "A title\n",
  "A title\n=": "A title\n",
  "text\n- ": "text\n",
  "text\n\n1.": "text\n\n",
  "text\n\n#": "text\n\n",
  "text\n\n| a | b |": "text\n\n",
  "text\n\n| a | b |\n|--": "text\n\n",
  "| a | b |\n|---|---|\n| 1": "| a | b |\n|---|---|\n| 1",
  "```js\nlet **x": "```js\nlet **x",
  "```js\nx\n```\nso **bold": "```js\nx\n```\nso **bold**",
  "snake_case_name": "snake_case_name",
  "2 * 3 * 4": "2 * 3 * 4",
};

for (const [text, expected] of Object.entries(shown)) {
  test(`while it grows, ${JSON.stringify(text)} is taken for ${JSON.stringify(expected)}`, () => {
    assert.equal(settle(text), expected);
  });
}
