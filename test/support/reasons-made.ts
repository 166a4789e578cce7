import { glob, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import ts from 'typescript';

/** What the source gives as reasons, by its syntax: which of them, and which with which status. */
export interface ReasonsMade {
  /** Given to an error, a cause or a helper that makes one; or by a script in the guest. */
  readonly reasons: ReadonlySet<string>;
  /** `STATUS/REASON` of every `new ShimError`. Where a helper makes it, every status of that file counts. */
  readonly pairs: ReadonlySet<string>;
  /** By scripts in the guest: no type holds those against the table. */
  readonly ofScripts: ReadonlySet<string>;
}

const SOURCE = join(import.meta.dirname, '../../src');
/** The table itself, and what only names reasons that others give. */
const NOT_LOOKED_AT = ['base/reasons.ts', 'cli/hints.ts'];
const SCRIPT_REASON = /(?:\bfail |\breason=)([A-Z][A-Z0-9]*(?:_[A-Z0-9]+)+)/g;
/** Their first argument is a status. */
const TAKES_STATUS = ['ShimError', 'CliFailure', 'isShimError'];

/** Reads all of src. */
export async function reasonsMade(): Promise<ReasonsMade> {
  const found = { reasons: new Set<string>(), pairs: new Set<string>(), ofScripts: new Set<string>() };
  for await (const name of glob('**/*.ts', { cwd: SOURCE })) {
    if (NOT_LOOKED_AT.includes(name) || name.startsWith('grpc/generated/')) continue;
    const file = ts.createSourceFile(name, await readFile(join(SOURCE, name), 'utf8'), ts.ScriptTarget.Latest, true);
    lookAt(file, found);
  }
  for await (const name of glob('**/*.sh', { cwd: SOURCE })) {
    const text = await readFile(join(SOURCE, name), 'utf8');
    for (const [, reason = ''] of text.matchAll(SCRIPT_REASON)) found.ofScripts.add(reason);
  }
  for (const reason of found.ofScripts) found.reasons.add(reason);
  return found;
}

function lookAt(file: ts.SourceFile, found: Record<keyof ReasonsMade, Set<string>>): void {
  const statuses = new Set<string>();
  const byHelpers = new Set<string>();
  const visit = (node: ts.Node): void => {
    if (ts.isStringLiteral(node)) {
      const how = whatBecomesOf(node);
      if (how !== undefined) found.reasons.add(node.text);
      if (how === 'argument') byHelpers.add(node.text);
    }
    if (ts.isNewExpression(node) && node.expression.getText(file) === 'ShimError') {
      const [status, , options] = node.arguments ?? [];
      const codes = status === undefined ? [] : literalsIn(status);
      for (const code of codes) {
        statuses.add(code);
        for (const reason of reasonsIn(options)) found.pairs.add(`${code}/${reason}`);
      }
    }
    ts.forEachChild(node, visit);
  };
  visit(file);
  for (const status of statuses) for (const reason of byHelpers) found.pairs.add(`${status}/${reason}`);
}

/** How a text goes on to become a reason; undefined when it is compared, listed, a type or a status. */
function whatBecomesOf(text: ts.StringLiteral): 'reason' | 'argument' | undefined {
  let node: ts.Node = text;
  while (isPassedThrough(node.parent, node)) node = node.parent;
  const { parent } = node;
  if (ts.isPropertyAssignment(parent)) {
    return ['reason', 'fallback'].includes(parent.name.getText()) ? 'reason' : undefined;
  }
  if (ts.isCallExpression(parent) || ts.isNewExpression(parent)) {
    return TAKES_STATUS.includes(parent.expression.getText()) ? undefined : 'argument';
  }
  const isValue =
    ts.isVariableDeclaration(parent) ||
    ts.isParameter(parent) ||
    ts.isReturnStatement(parent) ||
    ts.isArrowFunction(parent);
  return isValue ? 'argument' : undefined;
}

/** `condition ? 'ONE' : 'OTHER'`, `said ?? 'ONE'`, `('ONE' as const)`. */
function isPassedThrough(parent: ts.Node, node: ts.Node): boolean {
  if (ts.isConditionalExpression(parent)) return parent.condition !== node;
  if (ts.isBinaryExpression(parent)) return parent.operatorToken.kind === ts.SyntaxKind.QuestionQuestionToken;
  return ts.isParenthesizedExpression(parent) || ts.isAsExpression(parent);
}

function reasonsIn(options: ts.Expression | undefined): readonly string[] {
  if (options === undefined || !ts.isObjectLiteralExpression(options)) return [];
  return options.properties.flatMap((property) =>
    ts.isPropertyAssignment(property) && property.name.getText() === 'reason' ? literalsIn(property.initializer) : [],
  );
}

function literalsIn(value: ts.Expression): readonly string[] {
  if (ts.isStringLiteral(value)) return [value.text];
  if (ts.isConditionalExpression(value)) return [...literalsIn(value.whenTrue), ...literalsIn(value.whenFalse)];
  return [];
}
