// Runs the TypeScript program on stdin. Types are removed by Node.js itself
// where it can, else by the typescript package; nothing is checked.
const fs = require("fs"), path = require("path"), Module = require("module");
const args = process.argv.slice(1), cwd = process.cwd();
const source = fs.readFileSync(0, "utf8");
const [major, minor] = process.versions.node.split(".").map(Number);
const since = (a, b) => major > a || (major === a && minor >= b);
const isModule = /^\s*(import\s*["'{*\w]|export\s)/m.test(source);

function typescript() {
  const up = path.dirname(path.dirname(process.execPath));
  const roots = [cwd, up + "/lib", "/usr/local/lib", "/usr/lib"];
  for (const r of roots) {
    try { return require(require.resolve("typescript", { paths: [r === cwd ? r : r + "/node_modules"] })); } catch {}
  }
  for (const p of [up + "/lib/node_modules/typescript", "/usr/local/lib/node_modules/typescript", "/usr/lib/node_modules/typescript", "/usr/share/nodejs/typescript"]) {
    try { return require(p); } catch {}
  }
}

function here(js) {
  process.argv = [process.execPath, "-", ...args];
  const m = new Module("[stdin]");
  m.filename = path.join(cwd, "[stdin]");
  m.paths = Module._nodeModulePaths(cwd);
  process.mainModule = require.main = m;
  m._compile(js, m.filename);
}

function elsewhere(flags, options) {
  const r = require("child_process").spawnSync(process.execPath, [...flags, ...args], { stdio: ["pipe", "inherit", "inherit"], ...options });
  if (r.error) throw r.error;
  process.exitCode = r.signal ? 128 + require("os").constants.signals[r.signal] : r.status;
}

const quiet = "--disable-warning=ExperimentalWarning";
const native = since(23, 6) || (major === 22 && minor >= 13);
const ts = native ? undefined : typescript();
if (native) {
  const kind = isModule ? "module-typescript" : "commonjs-typescript";
  elsewhere([quiet, "--experimental-transform-types", "--input-type=" + kind, "-"], { input: source });
} else if (ts) {
  const options = { module: ts.ModuleKind.CommonJS, target: ts.ScriptTarget.ES2020, esModuleInterop: true };
  here(ts.transpileModule(source, { compilerOptions: options, fileName: "stdin.ts" }).outputText);
} else if (since(22, 6)) {
  const dir = fs.mkdtempSync(path.join(cwd, ".code-"));
  try {
    const file = path.join(dir, isModule ? "stdin.mts" : "stdin.cts");
    fs.writeFileSync(file, source);
    elsewhere([quiet, "--experimental-strip-types", file]);
  } finally {
    fs.rmSync(dir, { recursive: true, force: true });
  }
} else {
  console.error("typescript: this sandbox has Node.js " + process.versions.node + " and no typescript package; run \"npm install -g typescript\", or use an image with Node.js 22.6 or newer");
  process.exitCode = 127;
}
