/* The viewer of validation rooms: choosers, steps, legend and numbers around the canvas of points.js.
   Becomes of every element .room-viewer; its data-rooms is [{name, file}]. A room's script puts the packed
   room (see scannet_css/viewer/browser.py) into scannetRooms. */
"use strict";

(() => {
  const UNLABELLED = 255, TURN = 0.12, PAN = 40, ZOOM = 1.15; // radians, pixels, factor for one key press
  const MILLISECONDS_A_STEP = 1200;
  const HELP = "3D view. Arrow keys turn, with Shift they move, plus and minus zoom, R resets, "
    + "T looks from the top, comma and full stop change the step, space plays.";

  class RoomViewer {
    constructor(root) {
      this.rooms = JSON.parse(root.dataset.rooms);
      this.hidden = new Set(); // numbers of the classes that are off
      this.step = Infinity; // the last one
      this.title = this.otherTitle = null;
      root.replaceChildren();
      this.build(root);
      this.panels = new PointPanels(this.stage, this.canvas);
      this.followTheme();
      this.chooseRoom(0);
    }

    /* ---- What is on the page */

    build(root) {
      const names = this.rooms.map((room) => room.name);
      this.roomChoice = choice("Room", names, (index) => this.chooseRoom(index));
      this.runChoice = choice("Method", [], (index) => this.chooseRun(this.room.runs[index].title));
      this.otherChoice = choice("Compare with", [], (index) => {
        this.otherTitle = index ? this.room.runs[index - 1].title : null;
        this.showRuns();
      });
      this.playButton = button("Play", () => this.play(!this.timer));
      this.slider = make("input", { type: "range", min: 0, step: 1, ariaLabel: "Step" });
      this.slider.addEventListener("input", () => this.chooseStep(Number(this.slider.value)));
      this.stepText = make("output", { className: "step-text" });
      this.steps = make("div", { className: "steps" }, this.playButton, this.slider, this.stepText);
      this.canvas = make("canvas");
      this.grid = make("div", { className: "panels" });
      this.message = make("p", { className: "message" });
      this.message.setAttribute("role", "status");
      this.stage = make("div", { className: "stage", tabIndex: 0, ariaLabel: HELP }, this.canvas, this.grid);
      this.stage.setAttribute("role", "application");
      this.legend = make("div", { className: "legend" });
      this.legend.setAttribute("role", "group");
      this.legend.ariaLabel = "Classes shown";
      this.numbers = make("div", { className: "numbers" });
      this.choices = make("div", { className: "choices" }, this.roomChoice, this.runChoice, this.otherChoice);
      root.append(
        this.choices, this.steps, this.message, this.stage, this.tools(), this.legend, this.errorKey(),
        this.numbers,
      );
      this.takeKeys();
    }

    tools() {
      const size = make("input", { type: "range", min: 0.4, max: 4, step: 0.1, value: 2.2 });
      size.addEventListener("input", () => this.panels.setPointSize(Number(size.value)));
      const backs = make("input", { type: "checkbox", checked: true });
      backs.addEventListener("change", () => this.panels.set("hidesBacks", backs.checked));
      this.pointSize = size;
      return make(
        "div", { className: "tools" },
        button("Reset view", () => this.panels.resetCamera()),
        button("From the top", () => this.panels.resetCamera(90)),
        make("label", {}, "Point size ", size),
        make("label", {}, backs, " See through what faces away (near walls, ceiling)"),
      );
    }

    errorKey() {
      const names = ["wrong", "right", "unlabelled"];
      this.errorColours = names.map((name) => make("i", { className: `swatch ${name}` }));
      const entries = names.map((name, index) => make("span", {}, this.errorColours[index], name));
      return make("p", { className: "key" }, "Errors: ", ...entries);
    }

    takeKeys() {
      const { stage } = this;
      // While the page is only scrolled over the viewer the wheel is the page's; after a click it zooms.
      const isOwn = (event) => event.ctrlKey || document.activeElement === stage;
      const keepFromControls = (event) => isOwn(event) || event.stopImmediatePropagation();
      stage.addEventListener("wheel", keepFromControls, { capture: true, passive: true });
      stage.addEventListener("pointerdown", () => stage.focus({ preventScroll: true }));
      const arrow = (right, up) => (event) =>
        event.shiftKey ? this.panels.pan(PAN * right, PAN * up) : this.panels.turn(TURN * right, TURN * up);
      const actions = {
        ArrowLeft: arrow(-1, 0), ArrowRight: arrow(1, 0), ArrowUp: arrow(0, 1), ArrowDown: arrow(0, -1),
        "+": () => this.panels.zoom(ZOOM), "=": () => this.panels.zoom(ZOOM),
        "-": () => this.panels.zoom(1 / ZOOM),
        r: () => this.panels.resetCamera(), t: () => this.panels.resetCamera(90),
        ",": () => this.chooseStep(this.position() - 1), ".": () => this.chooseStep(this.position() + 1),
        " ": () => this.play(!this.timer),
      };
      stage.addEventListener("keydown", (event) => {
        const action = actions[event.key.length === 1 ? event.key.toLowerCase() : event.key];
        if (!action || !this.room || event.ctrlKey || event.metaKey || event.altKey) return;
        event.preventDefault();
        action(event);
      });
    }

    /* The colours of the errors are the style sheet's, light or dark. */
    followTheme() {
      const update = () => {
        for (const swatch of this.errorColours) {
          const colour = getComputedStyle(swatch).backgroundColor.match(/[\d.]+/g).slice(0, 3).map(Number);
          this.panels.set(`${swatch.className.split(" ")[1]}Colour`, colour);
        }
      };
      matchMedia("(prefers-color-scheme: dark)").addEventListener("change", update);
      new MutationObserver(update).observe(document.documentElement, { attributes: true });
      update();
    }

    /* ---- What is chosen */

    async chooseRoom(index) {
      const { name, file } = this.rooms[index];
      this.wanted = name;
      select(this.roomChoice).selectedIndex = index;
      this.message.textContent = `Loading ${name} …`;
      try {
        const room = await PackedRooms.load(name, file);
        if (this.wanted !== name) return;
        this.room = room;
        this.message.textContent = "";
      } catch (error) {
        this.message.textContent = error.message;
        return;
      }
      setOptions(this.runChoice, this.room.runs.map((run) => run.title));
      setOptions(this.otherChoice, ["nothing", ...this.room.runs.map((run) => run.title)]);
      this.runChoice.hidden = !this.room.runs.length;
      this.otherChoice.hidden = this.room.runs.length < 2;
      this.buildLegend();
      this.panels.setPointSize(Number(this.pointSize.value));
      this.layOut();
      this.panels.setRoom(this.room);
      await this.showRuns();
    }

    chooseRun(title) {
      this.title = title;
      return this.showRuns();
    }

    /* The runs on show, one or two; every room remembers what was chosen by title. */
    shownRuns() {
      const { runs } = this.room;
      const first = runs.find((run) => run.title === this.title) ?? runs[0];
      const second = runs.find((run) => run.title === this.otherTitle && run !== first);
      return [first, second].filter(Boolean);
    }

    async showRuns() {
      const { room } = this;
      this.runs = this.shownRuns();
      await Promise.all(this.runs.map(PackedRooms.unpackRun));
      if (room !== this.room) return;
      const [first, second] = this.runs;
      if (first) select(this.runChoice).selectedIndex = room.runs.indexOf(first);
      select(this.otherChoice).selectedIndex = second ? room.runs.indexOf(second) + 1 : 0;
      this.stepNumbers = stepNumbers(this.runs);
      this.layOut();
      this.showStep();
    }

    position() {
      const later = this.stepNumbers.findLastIndex((step) => step <= this.step);
      return Math.max(0, later);
    }

    chooseStep(position) {
      const last = this.stepNumbers.length - 1;
      this.step = this.stepNumbers[Math.max(0, Math.min(last, position))];
      this.showStep();
    }

    play(isOn) {
      clearInterval(this.timer);
      this.timer = null;
      if (isOn && this.stepNumbers.length > 1) {
        const advance = () => this.chooseStep((this.position() + 1) % this.stepNumbers.length);
        this.timer = setInterval(advance, MILLISECONDS_A_STEP);
        advance();
      }
      this.playButton.textContent = this.timer ? "Pause" : "Play";
    }

    /* ---- What is shown */

    layOut() {
      const runs = this.runs ?? [];
      const views = [{ content: "scan" }, { content: "truth" }];
      runs.forEach((_, run) => views.push({ content: "prediction", run }, { content: "errors", run }));
      for (const view of views) {
        view.title = make("span", { className: "title" });
        view.element = make("div", { className: "panel" }, view.title);
      }
      this.grid.replaceChildren(...views.map((view) => view.element));
      this.grid.dataset.panels = views.length;
      this.views = views;
      this.panels.setPanels(views);
    }

    showStep() {
      const { room, runs } = this;
      const steps = runs.map((run) => stepOf(run, this.stepNumbers[this.position()]));
      runs.forEach((run, slot) => {
        const from = run.steps.indexOf(steps[slot]) * room.vertices;
        this.panels.setNumbers(slot + 1, run.values.subarray(from, from + room.vertices));
      });
      this.shownSteps = steps;
      this.showClasses();
      for (const { content, run, title } of this.views) {
        title.textContent = {
          scan: () => "RGB",
          truth: () => "ground truth",
          prediction: () => runs[run].title,
          errors: () => `errors: ${share(steps[run].wrong, room.labelled)} % wrong`,
        }[content]();
      }
      this.showStepText();
      this.showNumbers();
    }

    showStepText() {
      const last = this.stepNumbers.length - 1;
      const position = this.position();
      Object.assign(this.slider, { max: Math.max(0, last), value: position, disabled: last < 1 });
      this.playButton.disabled = last < 1;
      this.steps.hidden = !this.runs.length;
      if (!this.runs.length) return;
      const step = this.shownSteps[0];
      const isFirst = step === this.runs[0].steps[0];
      const added = isFirst ? `${step.seen.length} classes` : `new: ${step.added.join(", ")}`;
      this.stepText.textContent = `step ${this.stepNumbers[position]} of ${this.stepNumbers[last]}; ${added}`;
      this.slider.ariaValueText = this.stepText.textContent;
    }

    showClasses() {
      const everything = this.room.classes.map((one) => one.number);
      const seen = this.shownSteps.length ? this.shownSteps.map((step) => step.seen) : [everything];
      this.panels.setClasses(
        this.room.classes.map((one) => [one.number, one.colour, !this.hidden.has(one.number)]), seen,
      );
    }

    buildLegend() {
      const entries = this.room.classes.map((one) => {
        const box = make("input", { type: "checkbox", checked: !this.hidden.has(one.number) });
        box.addEventListener("change", () => {
          this.hidden[box.checked ? "delete" : "add"](one.number);
          this.showClasses();
        });
        const swatch = make("i", { className: one.number === UNLABELLED ? "swatch unlabelled" : "swatch" });
        if (one.number !== UNLABELLED) swatch.style.backgroundColor = `rgb(${one.colour.join(", ")})`;
        return make("label", {}, box, swatch, one.name);
      });
      const all = (isShown) => () => {
        this.hidden = new Set(isShown ? [] : this.room.classes.map((one) => one.number));
        for (const entry of entries) entry.querySelector("input").checked = isShown;
        this.showClasses();
      };
      this.legend.replaceChildren(button("All", all(true)), button("None", all(false)), ...entries);
    }

    /* Share of wrong vertices of each run after each step; a cell chooses its run and step. */
    showNumbers() {
      const { room } = this;
      if (!room.runs.length) return this.numbers.replaceChildren();
      const steps = stepNumbers(room.runs);
      const names = ["method", ...steps.map((step) => `step ${step}`)];
      const head = make("tr", {}, ...names.map((name) => make("th", {}, name)));
      const rows = room.runs.map((run) => make("tr", {}, make("th", {}, run.title), ...steps.map((number) => {
        const step = run.steps.find((one) => one.step === number);
        if (!step) return make("td");
        const cell = button(share(step.wrong, room.labelled), () => {
          this.step = number;
          this.chooseRun(run.title);
        });
        cell.ariaLabel = `${run.title}, step ${number}: ${cell.textContent} % wrong`;
        if (this.shownSteps.includes(step)) cell.setAttribute("aria-current", "true");
        return make("td", {}, cell);
      })));
      const labelled = room.labelled.toLocaleString("en");
      const caption = `Wrong vertices in this room, in % of the ${labelled} labelled ones`;
      this.numbers.replaceChildren(
        make("p", {}, caption),
        make("div", {}, make("table", {}, make("thead", {}, head), make("tbody", {}, ...rows))),
      );
    }
  }

  /* A run's step of this number, the one before it where it has none, its first at least. */
  function stepOf(run, number) {
    return run.steps.findLast((step) => step.step <= number) ?? run.steps[0];
  }

  function stepNumbers(runs) {
    return [...new Set(runs.flatMap((run) => run.steps.map((step) => step.step)))].sort((a, b) => a - b);
  }

  function share(count, all) {
    return ((100 * count) / Math.max(1, all)).toFixed(1);
  }

  /* ---- Elements. Text only ever becomes text. */

  function make(tag, properties = {}, ...children) {
    const element = Object.assign(document.createElement(tag), properties);
    element.append(...children);
    return element;
  }

  function button(text, action) {
    const element = make("button", { type: "button" }, text);
    element.addEventListener("click", action);
    return element;
  }

  function choice(name, options, action) {
    const list = make("select");
    list.addEventListener("change", () => action(list.selectedIndex));
    const element = make("label", {}, `${name} `, list);
    setOptions(element, options);
    return element;
  }

  function select(element) {
    return element.querySelector("select");
  }

  function setOptions(element, options) {
    select(element).replaceChildren(...options.map((text) => make("option", {}, text)));
  }

  function start(root) {
    try {
      root.viewer = new RoomViewer(root);
    } catch (error) {
      const message = `The 3D view cannot be shown: ${error.message}`;
      root.replaceChildren(make("p", { className: "message" }, message));
    }
  }

  document.querySelectorAll(".room-viewer").forEach(start);
})();
