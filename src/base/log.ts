import { pino, type DestinationStream, type Logger } from 'pino';
import { LogOutput } from './log-output.ts';
import { visibleJson } from './visible.ts';

export type { Logger } from 'pino';

export const LOG_LEVELS = ['trace', 'debug', 'info', 'warn', 'error', 'fatal', 'silent'] as const;
export type LogLevel = (typeof LOG_LEVELS)[number];

/**
 * The root logger: JSON lines. Child loggers carry `sandboxId`, `volumeId`, `rpc`; messages are constant and
 * lower-case, data goes into fields, control and format characters are escaped. pino's own output waits for a disk
 * that is full; `logOutput` does not.
 */
export function createLogger(level: LogLevel, destination: DestinationStream): Logger {
  const options = {
    level,
    base: null,
    timestamp: () => `,"time":"${new Date().toISOString()}"`,
    formatters: { level: (label: string) => ({ level: label }) },
  };
  // What a guest said is in there, and somebody reads it on a terminal.
  return pino(options, { write: (line) => destination.write(visibleJson(line)) });
}

/** Standard output, as the daemon's log. */
export function logOutput(): LogOutput {
  return LogOutput.of(1, (dropped, problem) => {
    const notice = { level: 'warn', time: new Date().toISOString(), dropped, problem, msg: 'log lines dropped' };
    return `${JSON.stringify(notice)}\n`;
  });
}

/** Standard error, for lines of plain text. A failure to write them is no failure of whoever writes. */
export function errorOutput(name: string): LogOutput {
  return LogOutput.of(2, (dropped, problem) => `${name}: ${dropped} lines dropped: ${problem}\n`);
}

/** A logger that drops everything, for tests and tools. */
export function silentLogger(): Logger {
  return pino({ level: 'silent' });
}
