import { once } from 'node:events';
import type { ClientDuplexStream, ServiceError } from '@grpc/grpc-js';
import type { ExecStreamRequest } from '../../src/grpc/generated/qshim/v1/ExecStreamRequest.ts';
import type { ExecStreamResponse__Output } from '../../src/grpc/generated/qshim/v1/ExecStreamResponse.ts';
import type { ExecStreamStart } from '../../src/grpc/generated/qshim/v1/ExecStreamStart.ts';
import type { SandboxesClient } from '../../src/grpc/generated/qshim/v1/Sandboxes.ts';
import { until } from './until.ts';

/** A caller of Sandboxes.ExecStream that keeps what it hears. */
export class ExecStream {
  readonly call: ClientDuplexStream<ExecStreamRequest, ExecStreamResponse__Output>;
  readonly outputs = { stdout: [] as Buffer[], stderr: [] as Buffer[] };
  pid: number | undefined;
  readonly #ended: Promise<number | ServiceError>;
  #exitCode: number | undefined;

  constructor(client: SandboxesClient, start: ExecStreamStart) {
    this.call = client.execStream();
    const ended = Promise.withResolvers<number | ServiceError>();
    this.#ended = ended.promise;
    this.call.on('data', (message: ExecStreamResponse__Output) => {
      if (message.started) this.pid = message.started.pid;
      if (message.standardOutput) this.outputs.stdout.push(message.standardOutput);
      if (message.standardError) this.outputs.stderr.push(message.standardError);
      if (message.exited) this.#exitCode = message.exited.exitCode;
    });
    this.call.on('error', (error: ServiceError) => ended.resolve(error));
    this.call.on('end', () => {
      if (this.#exitCode !== undefined) ended.resolve(this.#exitCode);
    });
    this.call.write({ start });
  }

  get stdout(): Buffer {
    return Buffer.concat(this.outputs.stdout);
  }

  get stderr(): Buffer {
    return Buffer.concat(this.outputs.stderr);
  }

  /** At the pace at which the daemon takes it. */
  async send(...messages: readonly ExecStreamRequest[]): Promise<void> {
    for (const message of messages) if (!this.call.write(message)) await once(this.call, 'drain');
  }

  async type(text: string): Promise<void> {
    await this.send({ standardInput: Buffer.from(text) });
  }

  async says(text: string): Promise<void> {
    await until(`it says ${JSON.stringify(text)}`, () => this.stdout.includes(text));
  }

  async started(): Promise<number> {
    await until('it has started', () => this.pid !== undefined);
    return this.pid ?? 0;
  }

  /** @throws ServiceError when the call fails */
  async exitCode(): Promise<number> {
    const end = await this.#ended;
    if (typeof end === 'number') return end;
    throw end;
  }
}
