// Drawings of media on canvas. Each function returns an element; all redraw themselves when their
// size or the theme changes.

export function h(tag, props = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(props)) {
    if (name in element && name !== "list") element[name] = value;
    else element.setAttribute(name, value);
  }
  element.append(...children.flat().filter((child) => child !== null && child !== undefined));
  return element;
}

// Canvas reads no light-dark(): the browser resolves it where it is a colour of an element.
function resolved(name) {
  const probe = h("i");
  probe.style.color = `var(${name})`;
  document.body.append(probe);
  const found = getComputedStyle(probe).color;
  probe.remove();
  return found;
}

// A canvas whose pixels are those of the screen. `draw(context, width, height)` gets its size in
// the units of CSS; `height` is a number, or made of the width.
function drawing(label, height, draw, props = {}) {
  const canvas = h("canvas", { role: "img", ariaLabel: label, ...props });
  const redraw = () => {
    const width = canvas.clientWidth;
    if (!width) return;
    const high = typeof height === "function" ? height(width) : height;
    const dots = window.devicePixelRatio || 1;
    canvas.width = Math.round(width * dots);
    canvas.height = Math.round(high * dots);
    canvas.style.height = `${high}px`;
    const context = canvas.getContext("2d");
    context.scale(dots, dots);
    draw(context, width, high);
  };
  let last = 0;
  new ResizeObserver(() => {
    if (canvas.clientWidth !== last) { last = canvas.clientWidth; redraw(); }
  }).observe(canvas);
  document.addEventListener("themechange", redraw);
  return { canvas, redraw };
}

// Viridis at nine places; dark to light, also for those who see no colours.
const STOPS = [[68, 1, 84], [72, 40, 120], [62, 74, 137], [49, 104, 142], [38, 130, 142],
  [31, 158, 137], [53, 183, 121], [110, 206, 88], [253, 231, 37]];

export function viridis(share) {
  const at = Math.min(Math.max(share, 0), 1) * (STOPS.length - 1);
  const low = Math.min(Math.floor(at), STOPS.length - 2);
  return STOPS[low].map((value, i) => value + (STOPS[low + 1][i] - value) * (at - low));
}

// Least and greatest values of equal times, as a band; null where nothing was recorded.
function band(context, extremes, left, width, y, thin) {
  const step = width / extremes.length;
  extremes.forEach((pair, i) => {
    if (!pair) return;
    let top = y(pair[1]), bottom = y(pair[0]);
    const next = extremes[i + 1];
    if (next) { // neighbours touch, or a steep signal would fall apart
      top = Math.min(top, y(next[0]));
      bottom = Math.max(bottom, y(next[1]));
    }
    context.fillRect(left + i * step, top, Math.max(step, thin), Math.max(bottom - top, thin));
  });
}

// Single values of equal times, as a line; broken where nothing was recorded.
function line(context, extremes, left, width, y) {
  const step = width / extremes.length;
  context.beginPath();
  extremes.forEach((pair, i) => {
    if (!pair) return;
    const at = [left + (i + 0.5) * step, y(pair[0])];
    if (extremes[i - 1]) context.lineTo(...at);
    else context.moveTo(...at);
  });
  context.stroke();
}

export function waveform(shown) {
  const audio = h("audio", { controls: true, src: shown.wave, ariaLabel: "The sound that the path hears" });
  const { canvas, redraw } = drawing(`Waveform of ${shown.caption}`, 96, (context, width, height) => {
    const highest = Math.max(0.05, ...shown.peaks.flat().map(Math.abs));
    context.fillStyle = resolved("--main");
    band(context, shown.peaks, 0, width, (value) => height / 2 - (value / highest) * (height / 2 - 2), 1);
    const at = (audio.currentTime / shown.seconds) * width;
    context.fillStyle = resolved("--wrong");
    if (audio.currentTime) context.fillRect(at - 1, 0, 2, height);
  }, { className: "wave" });
  canvas.addEventListener("click", (event) => {
    audio.currentTime = (event.offsetX / canvas.clientWidth) * shown.seconds;
    audio.play();
  });
  const follow = () => { redraw(); if (!audio.paused) requestAnimationFrame(follow); };
  audio.addEventListener("play", follow);
  audio.addEventListener("seeked", redraw);
  audio.addEventListener("ended", redraw);
  return [canvas, audio];
}

export function channels(shown) {
  const row = 56;
  const label = `Plot of ${shown.caption}: ${shown.channels.map((one) => one.name).join(", ")}`;
  const { canvas } = drawing(label, shown.channels.length * row + 18, (context, width) => {
    const left = Math.min(120, width * 0.28);
    const quiet = resolved("--quiet");
    context.font = "12px system-ui, sans-serif";
    shown.channels.forEach((one, i) => {
      const known = one.extremes.filter(Boolean).flat();
      const low = Math.min(...known), high = Math.max(...known);
      const top = i * row + 4, room = row - 10;
      const y = (value) => top + room - ((value - low) / (high - low || 1)) * room;
      context.fillStyle = quiet;
      context.fillText(one.name, 0, top + room / 2 + 4, left - 50);
      context.textAlign = "right";
      context.fillText(short(high), left - 6, top + 10);
      context.fillText(short(low), left - 6, top + room);
      context.textAlign = "left";
      context.fillStyle = resolved("--line");
      context.fillRect(left, top + room + 2, width - left, 1);
      context.fillStyle = context.strokeStyle = resolved(`--path-${i % 8}`);
      context.lineWidth = 1.5;
      if (one.extremes.every((pair) => !pair || pair[0] === pair[1])) line(context, one.extremes, left, width - left, y);
      else band(context, one.extremes, left, width - left, y, 1.5);
    });
    context.fillStyle = quiet;
    const below = shown.channels.length * row + 12;
    context.fillText("0 s", left, below);
    context.textAlign = "right";
    context.fillText(`${short(shown.seconds)} s`, width, below);
  });
  return shown.left_out ? [canvas, h("p", { className: "quiet" }, `${shown.left_out} more channels are read and not shown.`)] : [canvas];
}

export const short = (value) => Number(value.toPrecision(3)).toString();

// A grey map in colours: 64 to 255 is the scale, less was not measured. Pointing at it tells values.
export function map(shown) {
  const canvas = h("canvas", { role: "img", ariaLabel: `Map of ${shown.caption}`, tabIndex: -1 });
  const value = (grey) => shown.limits[0] + ((grey - 64) / 191) * (shown.limits[1] - shown.limits[0]);
  const told = h("span", { className: "quiet" });
  const picture = new Image();
  picture.onload = () => {
    const context = canvas.getContext("2d", { willReadFrequently: true });
    canvas.width = picture.width;
    canvas.height = picture.height;
    const wide = Math.min(512, Math.max(192, picture.width * 2));
    canvas.style.maxWidth = `${wide}px`;
    canvas.style.imageRendering = picture.width < 256 ? "pixelated" : "auto";
    context.drawImage(picture, 0, 0);
    const pixels = context.getImageData(0, 0, canvas.width, canvas.height);
    const greys = pixels.data.filter((_, i) => i % 4 === 0);
    greys.forEach((grey, i) => {
      pixels.data.set(grey < 32 ? [128, 128, 128, 60] : [...viridis((grey - 64) / 191), 255], i * 4);
    });
    context.putImageData(pixels, 0, 0);
    canvas.addEventListener("pointermove", (event) => {
      const x = Math.floor((event.offsetX / canvas.clientWidth) * canvas.width);
      const y = Math.floor((event.offsetY / canvas.clientHeight) * canvas.height);
      const grey = greys[y * canvas.width + x];
      told.textContent = grey < 32 ? "not measured" : `here: ${short(value(grey))}`;
    });
  };
  picture.src = shown.map;
  const { canvas: scale } = drawing("Scale of colours", 13, (context, width, height) => {
    for (let x = 0; x < width; x++) {
      context.fillStyle = `rgb(${viridis(x / width).map(Math.round)})`;
      context.fillRect(x, 0, 1.5, height);
    }
  });
  const ends = shown.cells ? ["", ""] : ["far ", "near "];
  const bar = h("div", { className: "scale" }, `${ends[0]}${short(shown.limits[0])}`, scale, `${ends[1]}${short(shown.limits[1])}`, told);
  return [canvas, bar];
}

// Points in the unit ball, without perspective; the nearest are drawn last. Turned by dragging
// and with the arrow keys.
export function cloud(shown) {
  let turn = 0.6, tilt = 0.35;
  const heights = shown.points.map((point) => point[1]);
  const low = Math.min(...heights), high = Math.max(...heights);
  const colours = heights.map((y) => `rgb(${viridis(0.1 + 0.8 * ((y - low) / (high - low || 1))).map(Math.round)})`);
  const label = `${shown.caption}; turn with the arrow keys or by dragging`;
  const { canvas, redraw } = drawing(label, (width) => width, (context, width) => {
    const [sin, cos, up, flat] = [Math.sin(turn), Math.cos(turn), Math.sin(tilt), Math.cos(tilt)];
    const placed = shown.points.map(([x, y, z], i) => {
      const right = cos * x - sin * z, away = sin * x + cos * z;
      return [right, flat * y - up * away, up * y + flat * away, i];
    });
    placed.sort((one, other) => one[2] - other[2]);
    const scale = width / 2 - 6;
    const size = Math.min(5, Math.max(1.5, (0.9 * width) / Math.sqrt(placed.length)));
    for (const [x, y, near, i] of placed) {
      context.globalAlpha = 0.45 + 0.275 * (near + 1);
      context.fillStyle = colours[i];
      const dot = size * (0.85 + 0.15 * near);
      context.fillRect(width / 2 + x * scale - dot / 2, width / 2 - y * scale - dot / 2, dot, dot);
    }
  }, { className: "cloud", tabIndex: 0 });
  const rotate = (around, over) => {
    turn += around;
    tilt = Math.min(1.57, Math.max(-1.57, tilt + over));
    redraw();
  };
  canvas.addEventListener("pointermove", (event) => {
    if (event.buttons) rotate(-event.movementX / 120, event.movementY / 120);
  });
  canvas.addEventListener("pointerdown", (event) => canvas.setPointerCapture(event.pointerId));
  canvas.addEventListener("keydown", (event) => {
    const by = { ArrowLeft: [0.1, 0], ArrowRight: [-0.1, 0], ArrowUp: [0, 0.1], ArrowDown: [0, -0.1] }[event.key];
    if (!by) return;
    event.preventDefault();
    rotate(...by);
  });
  return [canvas];
}
