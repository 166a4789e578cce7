import { QMP_CONTRACT } from './contract.ts';
import type { QemuVersion, SchemaInfo } from './protocol.ts';

/** A member's shape: a leaf (true, or words about it) or the shapes of its own members. */
type Shape = true | string | { readonly [member: string]: Shape };

export interface ContractTable {
  readonly commands: Readonly<
    Record<
      string,
      { readonly arguments: Shape; readonly returns: Shape; readonly cases?: Readonly<Record<string, true>> }
    >
  >;
  readonly events: Readonly<Record<string, Shape>>;
}

/**
 * Compares what qshim sends and reads with what a binary says it takes and gives.
 * @param schema the answer to query-qmp-schema
 * @param version entries marked "since" a later version are left out
 * @returns one line for each command, event, variant or member that the binary does not have; empty when all is well
 */
export function checkContract(
  schema: readonly SchemaInfo[],
  version: QemuVersion,
  contract: ContractTable = QMP_CONTRACT,
): string[] {
  const walk = new SchemaWalk(schema, version);
  for (const [name, command] of Object.entries(contract.commands)) {
    const info = walk.top(name, 'command');
    if (info === undefined) continue;
    walk.compareArguments(info['arg-type'], command.arguments, `${name}: argument `, command.cases ?? {});
    walk.compare([info['ret-type']], command.returns, `${name}: result `);
  }
  for (const [name, data] of Object.entries(contract.events)) {
    const info = walk.top(name, 'event');
    if (info !== undefined) walk.compare([info['arg-type']], data, `${name}: member `);
  }
  return [...walk.findings];
}

/** True when `version` is `major.minor` or later. */
export function isAtLeast(version: QemuVersion, major: number, minor: number): boolean {
  return version.major > major || (version.major === major && version.minor >= minor);
}

/** True when an entry of the contract is for this version: it is not marked "since" a later one. */
export function isSince(leaf: unknown, version: QemuVersion): boolean {
  const match = typeof leaf === 'string' ? /since (\d+)\.(\d+)$/.exec(leaf) : null;
  return match === null || isAtLeast(version, Number(match[1]), Number(match[2]));
}

class SchemaWalk {
  readonly findings = new Set<string>();
  readonly #types: ReadonlyMap<string, SchemaInfo>;
  readonly #version: QemuVersion;
  /** Of those that the command in hand uses: which were met on the way. */
  readonly #met = new Set<string>();

  constructor(schema: readonly SchemaInfo[], version: QemuVersion) {
    this.#types = new Map(schema.map((info) => [info.name, info]));
    this.#version = version;
  }

  top(name: string, metaType: 'command' | 'event'): SchemaInfo | undefined {
    const info = this.#types.get(name);
    if (info?.['meta-type'] === metaType) return info;
    this.findings.add(`${name}: ${metaType} is not in the schema`);
    return undefined;
  }

  /** @param cases the variants that are used: each must be met somewhere */
  compareArguments(type: string | undefined, shape: Shape, where: string, cases: Readonly<Record<string, true>>): void {
    this.#met.clear();
    this.compare([type], shape, where, cases);
    for (const name of Object.keys(cases)) {
      if (!this.#met.has(name)) this.findings.add(`${where}variant ${name} is not in the schema`);
    }
  }

  compare(
    types: readonly (string | undefined)[],
    shape: Shape,
    where: string,
    cases: Readonly<Record<string, true>> = {},
  ): void {
    if (typeof shape !== 'object') return;
    const objects = types.flatMap((type) => this.#objects(type, cases));
    for (const [name, inner] of Object.entries(shape)) {
      if (typeof inner === 'string' && (/^(device|port) property/.test(inner) || !isSince(inner, this.#version)))
        continue;
      const found = objects.flatMap((object) => object.members?.filter((member) => member.name === name) ?? []);
      if (found.length === 0) this.findings.add(`${where}${name} is not in the schema`);
      else
        this.compare(
          found.map((member) => member.type),
          inner,
          `${where}${name}.`,
          cases,
        );
    }
  }

  /** The object types that a value of this type can be: elements of arrays, branches of alternates, chosen variants. */
  #objects(type: string | undefined, cases: Readonly<Record<string, true>>): SchemaInfo[] {
    const info = type === undefined ? undefined : this.#types.get(type);
    switch (info?.['meta-type']) {
      case 'array':
        return this.#objects(info['element-type'], cases);
      case 'alternate':
        return (info.members ?? []).flatMap((member) => this.#objects(member.type, cases));
      case 'object':
        return [info, ...this.#variants(info, cases).flatMap((variant) => this.#objects(variant, cases))];
      default:
        return [];
    }
  }

  #variants(info: SchemaInfo, cases: Readonly<Record<string, true>>): string[] {
    const variants = info.variants ?? [];
    const chosen = variants.filter((variant) => variant.case in cases);
    for (const variant of chosen) this.#met.add(variant.case);
    // A union that has none of them is another one, such as that of a server's address.
    return (chosen.length === 0 ? variants : chosen).map((variant) => variant.type);
  }
}
