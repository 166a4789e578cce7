/** Writes docs/errors.md from src/base/reasons.ts (`npm run error-docs`). */
import { writeFile } from 'node:fs/promises';
import { errorDocument } from './lib/error-document.ts';

await writeFile('docs/errors.md', errorDocument());
