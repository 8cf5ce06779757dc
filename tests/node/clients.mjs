// Node's clients, driven line by line as tests/clients/drivers/serve.py drives Python's: a JSON request on each line of
// stdin, its outcome on one line of stdout. Run in tests/node; COMPTOIR_URL and COMPTOIR_KEY say where and as whom.
import readline from "node:readline";
import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { generateText, Output, stepCountIs, streamText, tool } from "ai";
import OpenAI from "openai";
import { zodResponseFormat } from "openai/helpers/zod";
import { z } from "zod";

const baseURL = process.env.COMPTOIR_URL + "/v1";
const apiKey = process.env.COMPTOIR_KEY;
const MODEL = "comptoir-demo";
const City = z.object({ name: z.string() });
const Numbers = z.object({ a: z.number().int().optional(), b: z.number().int().optional() });
const FUNCTIONS = { weather: ({ a, b }) => `weather ${a ?? b ?? 0}`, time: ({ a, b }) => `time ${a ?? b ?? 0}` };
const integer = { type: "integer" };
const parameters = { type: "object", properties: { a: integer, b: integer } };

const question = (prompt) => [{ role: "user", content: prompt }];

const openai = {
  client: (retries) => new OpenAI({ baseURL, apiKey, maxRetries: retries }).chat.completions,
  text: async (prompt, retries) =>
    (await openai.client(retries).create({ model: MODEL, messages: question(prompt) })).choices[0].message.content,
  stream: async (prompt, retries) => {
    const stream_options = { include_usage: true };
    let said = "";
    for await (const chunk of await openai.client(retries).create({ model: MODEL, messages: question(prompt), stream: true, stream_options }))
      said += chunk.choices[0]?.delta.content ?? "";
    return said;
  },
  leave: async (prompt, retries) => {
    for await (const chunk of await openai.client(retries).create({ model: MODEL, messages: question(prompt), stream: true }))
      if (chunk.choices[0].delta.content) return chunk.choices[0].delta.content;
  },
  run: async (prompt, retries, stream) => {
    const tools = Object.entries(FUNCTIONS).map(([name, call]) => ({
      type: "function",
      function: { name, description: name, parameters, parse: JSON.parse, function: call },
    }));
    return openai.client(retries).runTools({ model: MODEL, messages: question(prompt), tools, stream }).finalContent();
  },
  tools: (prompt, retries) => openai.run(prompt, retries, false),
  stream_tools: (prompt, retries) => openai.run(prompt, retries, true),
  structured: async (prompt, retries) => {
    const response_format = zodResponseFormat(City, "city");
    const made = await openai.client(retries).parse({ model: MODEL, messages: question(prompt), response_format });
    return made.choices[0].message.parsed.name;
  },
};

const ai = {
  model: () => createOpenAICompatible({ name: "comptoir", baseURL, apiKey, supportsStructuredOutputs: true })(MODEL),
  tools_: () =>
    Object.fromEntries(
      Object.entries(FUNCTIONS).map(([name, execute]) => [name, tool({ description: name, inputSchema: Numbers, execute })]),
    ),
  streamed: async (options) => {
    // Without onError it writes the error to the console and ends the text.
    let failure;
    const { textStream } = streamText({ model: ai.model(), onError: ({ error }) => (failure = error), ...options });
    let said = "";
    for await (const piece of textStream) said += piece;
    if (failure) throw failure;
    return said;
  },
  text: async (prompt, maxRetries) => (await generateText({ model: ai.model(), prompt, maxRetries })).text,
  stream: (prompt, maxRetries) => ai.streamed({ prompt, maxRetries }),
  leave: async (prompt, maxRetries) => {
    const gone = new AbortController();
    const { textStream } = streamText({ model: ai.model(), prompt, maxRetries, abortSignal: gone.signal, onError: () => {} });
    for await (const piece of textStream) {
      gone.abort();
      return piece;
    }
  },
  tools: async (prompt, maxRetries) =>
    (await generateText({ model: ai.model(), prompt, maxRetries, tools: ai.tools_(), stopWhen: stepCountIs(3) })).text,
  stream_tools: (prompt, maxRetries) => ai.streamed({ prompt, maxRetries, tools: ai.tools_(), stopWhen: stepCountIs(3) }),
  structured: async (prompt, maxRetries) =>
    (await generateText({ model: ai.model(), prompt, maxRetries, output: Output.object({ schema: City }) })).output.name,
};

const forms = { openai, ai };
console.log(JSON.stringify({ ready: true }));
for await (const line of readline.createInterface({ input: process.stdin })) {
  const { driver, form, prompt, retries } = JSON.parse(line);
  let outcome;
  try {
    outcome = { result: (await forms[driver][form](prompt, retries)) ?? null };
  } catch (error) {
    outcome = { error: { type: error.constructor.name, words: String(error.message) } };
  }
  console.log(JSON.stringify(outcome));
}
