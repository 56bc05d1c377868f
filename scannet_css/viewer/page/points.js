/* The canvas of the viewer: the points of one room lie on the graphics card once and are drawn once for each
   panel, into the panel's rectangle, all through one camera. Nothing is drawn unless something changed. While
   the camera moves, only as many points are drawn as keep it smooth; all of them as soon as it rests. */
"use strict";

const PointPanels = (() => {
  const FIELD_OF_VIEW = 40; // degrees
  const AZIMUTH = 35, ELEVATION = 50; // degrees; where the camera stands at first
  const SMOOTH = 33; // milliseconds that a frame may take while the camera moves
  const REST = 160; // milliseconds without a movement until all points are drawn
  const LEAST_SHARE = 0.05;
  const CONTENT = { scan: 0, truth: 1, prediction: 2, errors: 3 };

  const VERTEX_SHADER = `
    precision highp float;
    uniform mat4 viewMatrix, projectionMatrix;
    uniform vec3 cameraPosition, low, wrongColour, rightColour, unlabelledColour;
    uniform float quantum, pointSize;
    uniform int content, run;
    uniform bool hidesBacks;
    uniform sampler2D classes; // row 0: colour and whether shown; rows 1, 2: whether a run has seen the class
    in vec3 position, normal, colour;
    in vec3 numbers; // classes: true one, predicted by the first run, by the second
    flat out vec3 paint;

    vec4 entry(float number, int row) { return texelFetch(classes, ivec2(int(number + 0.5), row), 0); }

    void hide() { // outside of everything that is drawn
      gl_Position = vec4(2.0, 2.0, 2.0, 1.0);
      gl_PointSize = 1.0;
      paint = vec3(0.0);
    }

    void main() {
      vec3 place = low + quantum * position;
      if (hidesBacks && dot(normal, cameraPosition - place) < 0.0) {
        hide();
        return;
      }
      bool isLabelled = numbers.x < 254.5;
      float truth = isLabelled && entry(numbers.x, 1 + run).r < 0.5 ? 0.0 : numbers.x;
      float predicted = run == 0 ? numbers.y : numbers.z;
      vec4 trueClass = entry(truth, 0), predictedClass = entry(predicted, 0);
      float shown = trueClass.a;
      if (content == 0) paint = colour;
      if (content == 1) paint = isLabelled ? trueClass.rgb : unlabelledColour;
      if (content == 2) { paint = predictedClass.rgb; shown = predictedClass.a; }
      if (content == 3) {
        paint = !isLabelled ? unlabelledColour : truth == predicted ? rightColour : wrongColour;
        shown = max(trueClass.a, predictedClass.a);
      }
      if (shown < 0.5) {
        hide();
        return;
      }
      bool hasNormal = dot(normal, normal) > 0.1;
      if (hasNormal) paint *= 0.86 + 0.14 * clamp(normal.z + 0.35 * normal.x + 0.2 * normal.y, -1.0, 1.0);
      gl_Position = projectionMatrix * viewMatrix * vec4(place, 1.0);
      gl_PointSize = clamp(pointSize / gl_Position.w, 1.0, 64.0);
    }`;

  const FRAGMENT_SHADER = `
    precision mediump float;
    flat in vec3 paint;
    out vec4 pixel;
    void main() { pixel = vec4(paint, 1.0); }`;

  class PointPanels {
    /* `stage`: the element that takes the mouse and keys; `panels`: elements in it, one rectangle each. */
    constructor(stage, canvas) {
      this.stage = stage;
      this.renderer = new THREE.WebGLRenderer({ canvas, alpha: true, antialias: false });
      this.renderer.setClearColor(0x000000, 0);
      this.renderer.autoClear = false;
      this.camera = new THREE.PerspectiveCamera(FIELD_OF_VIEW, 1, 0.05, 100);
      this.camera.up.set(0, 0, 1);
      this.controls = new THREE.OrbitControls(this.camera, stage);
      this.controls.addEventListener("change", () => this.moved());
      this.isMoving = false;
      this.share = 1; // of the points that a moving camera draws
      this.took = 0; // milliseconds for the last frame
      this.panels = [];
      this.sizeFactor = 1;
      this.table = new THREE.DataTexture(new Uint8Array(256 * 3 * 4), 256, 3);
      this.material = new THREE.RawShaderMaterial({
        glslVersion: THREE.GLSL3,
        vertexShader: VERTEX_SHADER,
        fragmentShader: FRAGMENT_SHADER,
        uniforms: {
          low: { value: new THREE.Vector3() }, quantum: { value: 1 }, pointSize: { value: 1 },
          content: { value: 0 }, run: { value: 0 }, hidesBacks: { value: true },
          classes: { value: this.table }, wrongColour: { value: new THREE.Vector3() },
          rightColour: { value: new THREE.Vector3() }, unlabelledColour: { value: new THREE.Vector3() },
        },
      });
      this.points = new THREE.Points(new THREE.BufferGeometry(), this.material);
      this.points.frustumCulled = false; // its bounds are not what the buffer says: positions are quantised
      this.scene = new THREE.Scene();
      this.scene.add(this.points);
      new ResizeObserver(() => this.redraw()).observe(stage);
    }

    /* The arrays of an unpacked room, see packed_rooms.js. */
    setRoom(room) {
      const geometry = new THREE.BufferGeometry();
      const attribute = (array, isShare) => new THREE.BufferAttribute(array, 4, isShare);
      this.numbers = new Uint8Array(room.vertices * 4);
      this.order = shuffled(room.vertices);
      geometry.setAttribute("position", attribute(padded(room.positions, this.order, Uint16Array), false));
      geometry.setAttribute("colour", attribute(padded(room.colours, this.order, Uint8Array), true));
      geometry.setAttribute("normal", attribute(padded(room.normals, this.order, Int8Array), true));
      geometry.setAttribute("numbers", attribute(this.numbers, false));
      this.points.geometry.dispose();
      this.points.geometry = geometry;
      this.setNumbers(0, room.labels);
      this.material.uniforms.low.value.fromArray(room.low);
      this.material.uniforms.quantum.value = room.step;
      this.room = room;
      this.resetCamera(ELEVATION);
    }

    /* Which classes the points have: slot 0 the true ones, 1 and 2 what the two runs predicted. */
    setNumbers(slot, values) {
      this.order.forEach((vertex, index) => {
        this.numbers[4 * index + slot] = values[vertex];
      });
      this.points.geometry.attributes.numbers.needsUpdate = true;
      this.redraw();
    }

    /* `colours`: [number, [red, green, blue], isShown]; `seen`: class numbers for each run. */
    setClasses(colours, seen) {
      const data = this.table.image.data.fill(0);
      for (const [number, colour, isShown] of colours) data.set([...colour, isShown ? 255 : 0], 4 * number);
      seen.forEach((numbers, run) => {
        for (const number of numbers) data[4 * (256 * (run + 1) + number)] = 255;
      });
      this.table.needsUpdate = true;
      this.redraw();
    }

    /* `panels`: [{element, content: "scan" | "truth" | "prediction" | "errors", run: 0 | 1}]. */
    setPanels(panels) {
      this.panels = panels;
      this.redraw();
    }

    set(name, value) {
      const uniform = this.material.uniforms[name];
      if (Array.isArray(value)) uniform.value.fromArray(value.map((part) => part / 255));
      else uniform.value = value;
      this.redraw();
    }

    setPointSize(factor) {
      this.sizeFactor = factor;
      this.redraw();
    }

    /* The camera looks at the middle of the room from `elevation` degrees; the whole room is in sight. */
    resetCamera(elevation = ELEVATION) {
      const { low, high } = this.room;
      const middle = low.map((value, axis) => (value + high[axis]) / 2);
      const radius = Math.max(0.1, Math.hypot(...low.map((value, axis) => high[axis] - value)) / 2);
      const up = (Math.min(elevation, 89.9) * Math.PI) / 180, around = (AZIMUTH * Math.PI) / 180;
      const towards = [Math.cos(around) * Math.cos(up), Math.sin(around) * Math.cos(up), Math.sin(up)];
      const distance = 1.06 * this.distanceFor(middle, towards);
      this.camera.position.fromArray(middle.map((value, axis) => value + distance * towards[axis]));
      this.camera.near = radius / 100;
      this.camera.far = radius * 40;
      this.controls.maxDistance = radius * 20;
      this.controls.minDistance = radius / 50;
      this.controls.target.fromArray(middle);
      this.controls.update();
      this.redraw();
    }

    /* How far from `middle` all points that face the camera are in sight, looking against `towards`. */
    distanceFor(middle, towards) {
      const { positions, normals, vertices, low, step } = this.room;
      const [x, y, z] = towards, flat = Math.hypot(x, y);
      const right = [-y / flat, x / flat, 0], above = [(-x * z) / flat, (-y * z) / flat, flat];
      const tangent = Math.tan((FIELD_OF_VIEW * Math.PI) / 360), aspect = this.aspect();
      const every = Math.max(1, Math.floor(vertices / 20000));
      const along = (direction, values) => direction.reduce((sum, part, axis) => sum + part * values[axis], 0);
      let distance = 0.1;
      for (let from = 0; from < 3 * vertices; from += 3 * every) {
        if (along(towards, normals.subarray(from, from + 3)) < 0) continue;
        const local = middle.map((value, axis) => low[axis] + step * positions[from + axis] - value);
        const across = Math.abs(along(right, local)) / aspect, upright = Math.abs(along(above, local));
        distance = Math.max(distance, Math.max(across, upright) / tangent + along(towards, local));
      }
      return distance;
    }

    turn(right, up) {
      this.controls.rotateLeft(-right);
      this.controls.rotateUp(up);
    }

    pan(right, up) {
      this.controls.pan(-right, up);
    }

    zoom(factor) {
      if (factor > 1) this.controls.dollyIn(factor);
      else this.controls.dollyOut(1 / factor);
    }

    aspect() {
      const box = this.panels[0]?.element.getBoundingClientRect();
      return box?.height ? box.width / box.height : 1;
    }

    /* The camera moves: the next frames may have fewer points, the one after the last movement has all. */
    moved() {
      this.isMoving = true;
      clearTimeout(this.resting);
      this.resting = setTimeout(() => {
        this.isMoving = false;
        if (this.points.geometry.drawRange.count < this.room.vertices) this.redraw();
      }, REST + this.took);
      this.redraw();
    }

    /* They lie in random order, so any first ones of them show the whole room. */
    countPoints() {
      return Math.max(1, Math.round(this.room.vertices * (this.isMoving ? this.share : 1)));
    }

    /* Asks the graphics card when it has drawn what it was given since `start`. */
    measure(count, start) {
      if (this.isMeasuring) return;
      this.isMeasuring = true;
      const gl = this.renderer.getContext(), fence = gl.fenceSync(gl.SYNC_GPU_COMMANDS_COMPLETE, 0);
      gl.flush();
      const look = () => {
        if (gl.getSyncParameter(fence, gl.SYNC_STATUS) !== gl.SIGNALED && !gl.isContextLost()) {
          setTimeout(look, 4);
          return;
        }
        gl.deleteSync(fence);
        this.isMeasuring = false;
        this.adapt(count, performance.now() - start);
      };
      look();
    }

    /* `count` points took so many milliseconds: how many may a moving camera draw? */
    adapt(count, took) {
      this.took = took;
      this.share = Math.min(1, Math.max(LEAST_SHARE, (count / this.room.vertices) * (SMOOTH / took)));
    }

    /* Draws at the next frame, once, however often it is asked for. */
    redraw() {
      if (this.isWaiting) return;
      this.isWaiting = true;
      requestAnimationFrame(() => {
        this.isWaiting = false;
        this.draw();
      });
    }

    draw() {
      const { renderer, camera, material } = this, start = performance.now();
      const outer = this.stage.getBoundingClientRect();
      if (!this.room || !this.panels.length || !outer.width || !outer.height) return;
      renderer.setPixelRatio(Math.min(2, window.devicePixelRatio));
      renderer.setSize(outer.width, outer.height, false);
      renderer.setScissorTest(false);
      renderer.clear();
      renderer.setScissorTest(true);
      camera.aspect = this.aspect();
      // The controls measure the mouse against the whole stage, the room fills a panel.
      const rows = outer.height / this.panels[0].element.getBoundingClientRect().height;
      this.controls.panSpeed = this.controls.rotateSpeed = rows;
      camera.updateProjectionMatrix();
      const count = this.countPoints();
      this.points.geometry.setDrawRange(0, count);
      const sparse = Math.sqrt(this.room.vertices / count); // larger points close the gaps
      for (const { element, content, run } of this.panels) {
        const box = element.getBoundingClientRect();
        const place = [box.left - outer.left, outer.bottom - box.bottom, box.width, box.height];
        renderer.setViewport(...place);
        renderer.setScissor(...place);
        const metre = (box.height * renderer.getPixelRatio()) / (2 * Math.tan((FIELD_OF_VIEW * Math.PI) / 360));
        material.uniforms.pointSize.value = sparse * this.sizeFactor * this.room.spacing * metre;
        material.uniforms.content.value = CONTENT[content];
        material.uniforms.run.value = run ?? 0;
        material.uniformsNeedUpdate = true;
        renderer.render(this.scene, camera);
      }
      this.measure(count, start);
    }
  }

  /* The numbers below `count` in an order that looks random and is always the same. */
  function shuffled(count) {
    const order = Uint32Array.from({ length: count }, (_, index) => index);
    let state = 1;
    for (let index = count - 1; index > 0; index--) {
      state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
      const other = Math.floor((state / 2 ** 32) * (index + 1));
      [order[index], order[other]] = [order[other], order[index]];
    }
    return order;
  }

  /* Rows of three in this order as rows of four: graphics cards want rows that begin at multiples of four
     bytes. */
  function padded(values, order, Kind) {
    const rows = new Kind(order.length * 4);
    order.forEach((vertex, index) => {
      for (let part = 0; part < 3; part++) rows[4 * index + part] = values[3 * vertex + part];
    });
    return rows;
  }

  return PointPanels;
})();
