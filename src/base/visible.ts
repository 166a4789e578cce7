/**
 * Text that others wrote (a guest, a disk, a caller) and people read. Control characters drive a terminal; format
 * characters, those that turn the direction of writing among them, make text look like another.
 */
const ACTIVE = /[\p{Cc}\p{Cf}\u2028\u2029]/gu;
const ACTIVE_BUT_LAYOUT = /[^\P{Cc}\n\t]|[\p{Cf}\u2028\u2029]/gu;
/** Those that JSON.stringify leaves as they are. */
const ACTIVE_IN_JSON = /[\u007f-\u009f\p{Cf}\u2028\u2029]/gu;

/** Control and format characters as `\u{1b}`. */
export function visible(text: string): string {
  return text.replace(ACTIVE, shown);
}

/** The same, but for line feed and tab. */
export function visibleLines(text: string): string {
  return text.replace(ACTIVE_BUT_LAYOUT, shown);
}

/** JSON that means the same, without any control or format character in it. */
export function visibleJson(json: string): string {
  return json.replace(ACTIVE_IN_JSON, (character) =>
    Array.from(
      { length: character.length },
      (_, index) => `\\u${character.charCodeAt(index).toString(16).padStart(4, '0')}`,
    ).join(''),
  );
}

function shown(character: string): string {
  return `\\u{${(character.codePointAt(0) ?? 0).toString(16)}}`;
}
