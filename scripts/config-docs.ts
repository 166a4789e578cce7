/** Writes docs/config.md from src/config.ts (`npm run config-docs`). */
import { writeFile } from 'node:fs/promises';
import { configDocument } from './lib/config-document.ts';

await writeFile('docs/config.md', configDocument());
