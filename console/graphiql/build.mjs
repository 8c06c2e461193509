// Bundles the GraphiQL page into aforo/api/graphiql/ and collects the licences of all that is in it.
import { build } from 'esbuild';
import { mkdir, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

const HERE = dirname(fileURLToPath(import.meta.url));
const OUT = join(HERE, '..', '..', 'aforo', 'api', 'graphiql');
const BYTES_MAX = 3_000_000;
const RULE = '='.repeat(80);

// Packages that bring no licence text, and the package of the same authors whose text they share.
const LICENCE_OF = {
  '@graphiql/plugin-doc-explorer': 'graphiql',
  '@graphiql/plugin-history': 'graphiql',
  'react-compiler-runtime': 'react',
  'react-remove-scroll-bar': 'react-remove-scroll',
  'toggle-selection': 'copy-to-clipboard',
};

// The stock sheet carries 360 kB of embedded web fonts; the page uses the reader's own fonts.
const withoutFonts = {
  name: 'without-fonts',
  setup({ onLoad }) {
    onLoad({ filter: /graphiql[\\/]dist[\\/]style\.css$/ }, async ({ path }) => {
      const sheet = await readFile(path, 'utf8');
      return { contents: sheet.replace(/@font-face\s*\{[^}]*\}/g, ''), loader: 'css' };
    });
  },
};

await rm(OUT, { recursive: true, force: true });
await mkdir(OUT, { recursive: true });

const { metafile } = await build({
  absWorkingDir: HERE,
  entryPoints: { graphiql: 'src/main.jsx' },
  outdir: OUT,
  entryNames: '[name]-[hash]', // The name changes with the content, so browsers may keep the file.
  bundle: true,
  splitting: false, // One script, so the page's policy can allow one nonce and nothing else.
  format: 'esm',
  target: 'es2022',
  jsx: 'automatic',
  minify: true,
  legalComments: 'none', // THIRD-PARTY-LICENSES has them, in full.
  banner: {
    js: '/* Licences of the bundled packages: THIRD-PARTY-LICENSES, beside this file. */',
    css: '/* Licences of the bundled packages: THIRD-PARTY-LICENSES, beside this file. */',
  },
  define: { 'process.env.NODE_ENV': '"production"' },
  plugins: [withoutFonts],
  metafile: true,
  logLevel: 'warning',
});

const packages = bundledPackages(metafile);
await writeFile(join(OUT, 'THIRD-PARTY-LICENSES'), await licences(packages));
report(metafile, packages);

// Folders of the packages that put at least one byte into an output, sorted.
function bundledPackages({ outputs }) {
  const folders = new Set();
  for (const { inputs } of Object.values(outputs)) {
    for (const [path, { bytesInOutput }] of Object.entries(inputs)) {
      const folder = path.match(/^.*node_modules\/(?:@[^/]+\/)?[^/]+/)?.[0];
      if (folder && bytesInOutput > 0) folders.add(folder);
    }
  }
  return [...folders].sort();
}

async function licences(folders) {
  const parts = ['The files of GraphiQL in this folder contain the following packages.\n'];
  for (const folder of folders) {
    const about = JSON.parse(await readFile(join(HERE, folder, 'package.json'), 'utf8'));
    const head = `${about.name} ${about.version} (${about.license})`;
    parts.push(`${RULE}\n${head}\n${RULE}\n\n${await licence(folder, about)}`);
  }
  return parts.join('\n');
}

async function licence(folder, { name, license }) {
  const own = await licenceText(join(HERE, folder));
  if (own) return own;
  const other = LICENCE_OF[name];
  const shared = other && (await licenceText(join(HERE, 'node_modules', other)));
  if (!shared) throw new Error(`${name} (${license}) brings no licence text: name it in LICENCE_OF`);
  return `The package brings no text of its own; this is the one of ${other}, by its authors.\n\n${shared}`;
}

async function licenceText(folder) {
  const names = (await readdir(folder)).filter((entry) => /^(licen[cs]e|notice)/i.test(entry)).sort();
  const texts = await Promise.all(names.map((entry) => readFile(join(folder, entry), 'utf8')));
  return texts.map((text) => `${text.replaceAll('\r\n', '\n').trim()}\n`).join('\n');
}

function report({ outputs }, folders) {
  const total = Object.values(outputs).reduce((sum, { bytes }) => sum + bytes, 0);
  for (const [path, { bytes }] of Object.entries(outputs)) {
    console.log(`${path.split('/').pop()}  ${(bytes / 1000).toFixed(0)} kB`);
  }
  console.log(`${folders.length} packages, ${(total / 1000).toFixed(0)} kB`);
  if (total > BYTES_MAX) throw new Error(`the bundle is larger than ${BYTES_MAX} bytes`);
}
