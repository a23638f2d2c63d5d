// Human (npm `@vladmandic/human`), asked by `bench/peers.py` as `peers_one.py` is:
//
//     node bench/peers_human.js FOLDER [every]
//
// FOLDER/node_modules holds it, tfjs-core, tfjs-converter and tfjs-backend-wasm. `every`: each frame for itself, without its cache of
// the frames before, by which it looks for faces again after 2.5 s or when much of the picture has changed. What it can do besides
// finding faces and reading expressions is off.

const fs = require("fs");
const path = require("path");

console.log = console.error; // what it prints is no answer
const modules = path.resolve(process.argv[2], "node_modules");
const folder = path.join(modules, "@vladmandic/human");
const { Human } = require(path.join(folder, "dist/human.node-wasm.js"));

// The WASM build asks for its files by `fetch`, which in node reads no `file://`.
const plain = globalThis.fetch;
globalThis.fetch = async (url, options) => {
  const name = String(url.url ?? url);
  return name.startsWith("file://") ? new Response(fs.readFileSync(name.slice(7))) : plain(url, options);
};

function frames(name) {
  const file = fs.readFileSync(name);
  const length = file.readUInt16LE(8);
  const shape = /\((\d+), (\d+), (\d+), 3\)/.exec(file.toString("latin1", 10, 10 + length)).slice(1).map(Number);
  return { bytes: file.subarray(10 + length), shape };
}

async function main() {
  const human = new Human({
    backend: "wasm",
    modelBasePath: `file://${folder}/models/`,
    wasmPath: path.join(modules, "@tensorflow/tfjs-backend-wasm/dist/"),
    cacheSensitivity: process.argv[3] === "every" ? 0 : 0.7,
    filter: { enabled: false },
    face: {
      enabled: true,
      detector: { maxDetected: 20, rotation: false },
      mesh: { enabled: false },
      iris: { enabled: false },
      description: { enabled: false },
      emotion: { enabled: true },
    },
    body: { enabled: false },
    hand: { enabled: false },
    object: { enabled: false },
    gesture: { enabled: false },
  });
  await human.load();

  async function read(bytes, [height, width]) {
    const rgb = new Int32Array(bytes.length);
    for (let at = 0; at < bytes.length; at += 3) {
      rgb[at] = bytes[at + 2];
      rgb[at + 1] = bytes[at + 1];
      rgb[at + 2] = bytes[at];
    }
    const tensor = human.tf.tensor4d(rgb, [1, height, width, 3], "int32");
    const found = await human.detect(tensor);
    tensor.dispose();
    if (found.error) throw new Error(found.error);
    return found.face.map((face) => [...face.box, face.emotion?.[0]?.emotion ?? "none"]);
  }

  const lines = require("readline").createInterface({ input: process.stdin });
  for await (const line of lines) {
    const { bytes, shape } = frames(line.trim());
    const [count, height, width] = shape;
    const size = height * width * 3;
    const one = (index) => read(bytes.subarray(index * size, (index + 1) * size), [height, width]);
    const faces = [await one(0)];
    const [began, busy] = [performance.now(), process.cpuUsage()];
    for (let index = 1; index < count; index += 1) faces.push(await one(index));
    const spent = process.cpuUsage(busy);
    const seconds = (performance.now() - began) / 1000;
    const answer = { seconds, processor: (spent.user + spent.system) / 1e6, peak: process.resourceUsage().maxRSS / 1024, faces };
    fs.writeSync(1, `${JSON.stringify(answer)}\n`);
  }
}

main();
