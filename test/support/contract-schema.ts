import { QMP_CONTRACT } from '../../src/qmp/contract.ts';
import type { SchemaInfo } from '../../src/qmp/protocol.ts';

/** A query-qmp-schema answer that holds exactly what QMP_CONTRACT asks for, with `aio` as QEMU 7.2 has it. */
export function schemaOfContract(): SchemaInfo[] {
  const entries: SchemaInfo[] = [
    { name: 'str', 'meta-type': 'builtin' },
    { name: 'aio', 'meta-type': 'enum', values: ['threads', 'native', 'io_uring'] },
  ];
  const define = (shape: unknown, cases?: object): string => {
    if (typeof shape !== 'object' || shape === null) return 'str';
    const members = Object.entries(shape).map(([name, inner]) => ({
      name,
      type: name === 'aio' ? 'aio' : define(inner, cases),
    }));
    const name = String(entries.length);
    entries.push({ name, 'meta-type': 'object', members });
    if (cases === undefined) return name;
    const variants = Object.keys(cases).map((each) => ({ case: each, type: name }));
    entries.push({ name: `${name}-cases`, 'meta-type': 'object', members, variants });
    return `${name}-cases`;
  };
  for (const [name, command] of Object.entries(QMP_CONTRACT.commands)) {
    const argType = define(command.arguments, 'cases' in command ? command.cases : undefined);
    entries.push({ name, 'meta-type': 'command', 'arg-type': argType, 'ret-type': define(command.returns) });
  }
  for (const [name, data] of Object.entries(QMP_CONTRACT.events)) {
    entries.push({ name, 'meta-type': 'event', 'arg-type': define(data) });
  }
  return entries;
}
