import { OPTIONS, projectRoot } from '../../src/config.ts';

/** docs/config.md: every option in one place. */
export function configDocument(): string {
  const lines = OPTIONS.map((option) => {
    const shown = Array.isArray(option.defaultValue) ? option.defaultValue.join(',') : String(option.defaultValue);
    const value = shown.startsWith(projectRoot) ? shown.replace(projectRoot, '<project>') : shown;
    return `| \`${option.name}\` | \`${option.environment}\` | \`${option.flag}\` | \`${value}\` | ${option.description} |`;
  });
  return [
    '# Options of qshimd',
    '',
    'Made from `src/config.ts` by `npm run config-docs`. Sources, later ones win: the TOML file (`--config FILE`, else',
    '`/etc/qshim/config.toml` if it exists), the environment, flags. Lists are separated by commas in environment and flags.',
    'Durations are milliseconds. Sizes take a unit as well, as powers of 1024: `memory_mib` 2G, `console_bytes_max` 16M.',
    '',
    '| TOML | environment | flag | default | meaning |',
    '|---|---|---|---|---|',
    ...lines,
    '',
  ].join('\n');
}
