// The official Node SDK against a running trading post: prints one JSON object that test_openai_sdk.py looks at.
// Arguments: base URL, key, chat model, embedding model.
import OpenAI from "openai";

const [baseURL, apiKey, model, embedding] = process.argv.slice(2);
const client = new OpenAI({ baseURL, apiKey, maxRetries: 0 });
const messages = [{ role: "user", content: "hi" }];
const seen = {};

const whole = await client.chat.completions.create({ model, messages });
seen.whole = whole.choices[0].message.content;
seen.requestId = whole._request_id;

const stream = await client.chat.completions.create({ model, messages, stream: true, stream_options: { include_usage: true } });
seen.deltas = [];
for await (const chunk of stream) {
  if (chunk.choices.length) seen.deltas.push(chunk.choices[0].delta.content ?? null);
  else seen.usage = chunk.usage;
}

const runner = client.chat.completions.stream({ model, messages: [{ role: "user", content: "tools" }] });
const final = await runner.finalChatCompletion();
const call = final.choices[0].message.tool_calls[0];
seen.tool = [call.id, call.function.name, call.function.arguments, final.choices[0].finish_reason];

const vectors = await client.embeddings.create({ model: embedding, input: "x" });
seen.embedding = Array.from(vectors.data[0].embedding);

seen.models = [];
for await (const one of client.models.list()) seen.models.push(one.id);
seen.model = (await client.models.retrieve(model)).id;

const failure = async (work) => {
  try {
    await work();
  } catch (error) {
    return [error.constructor.name, error.status ?? null, error.code ?? null, error.param ?? null];
  }
  return null;
};
seen.missing = await failure(() => client.chat.completions.create({ model: "gpt-9", messages }));
seen.bad = await failure(() => client.chat.completions.create({ model, messages, temperature: 9 }));
seen.key = await failure(() => new OpenAI({ baseURL, apiKey: "ck_wrong", maxRetries: 0 }).models.list());
seen.cut = await failure(async () => {
  const broken = await client.chat.completions.create({ model, messages: [{ role: "user", content: "die" }], stream: true });
  for await (const _ of broken);
});

const left = await client.chat.completions.create({ model, messages: [{ role: "user", content: "endless" }], stream: true });
for await (const _ of left) break;

console.log(JSON.stringify(seen));
