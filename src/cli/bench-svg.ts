/** The results of `qshim bench volume` as a picture. Pure. */
import type { Result } from './bench-fio.ts';
import { nanosText } from './stats-view.ts';
import { bytesText } from './values.ts';

const WIDTH = 760;
const ROW = 46;
const TOP = 64;
const NAME = 120;
const BAR = 250;
const GAP = 20;
const LATENCY_X = NAME + BAR + GAP + 100;
const LATENCY_WIDTH = WIDTH - LATENCY_X - 20;
/** 10 us to 10 s, as the histograms of `qshim stats`. */
const SHORTEST_LOG = 4;
const LONGEST_LOG = 10;

/** A bar for each job's rate, and from half to 99 % of its requests on a logarithmic line of time. */
export function resultSvg(title: string, results: readonly Result[]): string {
  const height = TOP + ROW * results.length + 30;
  const fastest = Math.max(...results.map(({ bytesPerSecond }) => bytesPerSecond), 1);
  const decades = Array.from({ length: LONGEST_LOG - SHORTEST_LOG + 1 }, (_, index) => SHORTEST_LOG + index);
  return [
    `<svg xmlns="http://www.w3.org/2000/svg" width="${WIDTH}" height="${height}" viewBox="0 0 ${WIDTH} ${height}" font-family="sans-serif" font-size="12">`,
    `<rect width="${WIDTH}" height="${height}" fill="white"/>`,
    text(20, 24, title, 'font-size="15" font-weight="bold"'),
    text(NAME, 48, 'rate'),
    text(LATENCY_X, 48, 'latency: half, mean, 99 %'),
    ...decades.flatMap((decade) => {
      const at = x(10 ** decade);
      const line = `<line x1="${at}" y1="${TOP - 8}" x2="${at}" y2="${height - 26}" stroke="#ddd"/>`;
      return [line, text(at, height - 10, nanosText(10 ** decade), 'text-anchor="middle" font-size="9"')];
    }),
    ...results.flatMap((result, index) => rowOf(result, TOP + ROW * index, fastest)),
    '</svg>',
    '',
  ].join('\n');
}

function rowOf(result: Result, y: number, fastest: number): readonly string[] {
  const { job, iops, bytesPerSecond, meanNs, halfNs = meanNs, mostNs = meanNs } = result;
  const width = Math.max(1, Math.round((BAR * bytesPerSecond) / fastest));
  const rate = `${bytesText(Math.round(bytesPerSecond))}/s, ${iops.toFixed(0)} a second`;
  const middle = y + 11;
  return [
    text(20, y + 15, job),
    `<rect x="${NAME}" y="${y}" width="${width}" height="22" fill="${job.includes('read') ? '#4878a8' : '#c06040'}"/>`,
    text(NAME, y + 36, rate, 'font-size="10"'),
    `<line x1="${x(halfNs)}" y1="${middle}" x2="${x(mostNs)}" y2="${middle}" stroke="#555" stroke-width="2"/>`,
    ...[halfNs, mostNs].map((at) => `<circle cx="${x(at)}" cy="${middle}" r="4" fill="#555"/>`),
    `<path d="M ${x(meanNs)} ${y + 3} v 16" stroke="black" stroke-width="2"/>`,
  ];
}

function x(nanoseconds: number): number {
  const log = Math.log10(Math.max(nanoseconds, 1));
  const share = Math.min(1, Math.max(0, (log - SHORTEST_LOG) / (LONGEST_LOG - SHORTEST_LOG)));
  return Math.round(LATENCY_X + share * LATENCY_WIDTH);
}

function text(atX: number, atY: number, words: string, more = ''): string {
  const escaped = words.replaceAll('&', '&amp;').replaceAll('<', '&lt;').replaceAll('>', '&gt;');
  return `<text x="${atX}" y="${atY}" ${more}>${escaped}</text>`;
}
