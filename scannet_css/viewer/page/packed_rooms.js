/* Rooms as scannet_css/viewer/browser.py packs them: loaded when they are wanted, unpacked once. */
"use strict";

const PackedRooms = (() => {
  /* The unpacked room; its script is loaded when it is wanted for the first time. */
  async function load(name, file) {
    globalThis.scannetRooms ??= {};
    if (!scannetRooms[name] && file) {
      await new Promise((resolve) => {
        const script = document.createElement("script");
        document.head.append(Object.assign(script, { src: file, onload: resolve, onerror: resolve }));
      });
    }
    const room = scannetRooms[name];
    if (!room) throw new Error(`${file ?? name} cannot be read`);
    if (!room.positions) await unpackRoom(room);
    return room;
  }

  async function unpackRoom(room) {
    const data = await inflate(room.points), count = room.vertices;
    room.positions = new Uint16Array(data.buffer, 0, 3 * count);
    room.colours = data.subarray(6 * count, 9 * count);
    room.normals = new Int8Array(data.buffer, 9 * count, 3 * count);
    room.labels = data.subarray(12 * count, 13 * count);
    const highest = [0, 0, 0];
    room.positions.forEach((value, index) => {
      if (value > highest[index % 3]) highest[index % 3] = value;
    });
    room.high = room.low.map((value, axis) => value + room.step * highest[axis]);
  }

  async function unpackRun(run) {
    run.values ??= await inflate(run.predictions); // one step after the other
  }

  async function inflate(text) {
    const bytes = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
    return new Uint8Array(await new Response(stream).arrayBuffer());
  }

  return { load, unpackRun };
})();
