// Stands in the head, so that the page never flashes in the wrong colours. The system's choice of light or
// dark holds until the reader makes one, which is remembered.
(function () {
  let theme = null;
  try {
    theme = localStorage.getItem("scannet-css theme");
  } catch {
    // storage is switched off: the choice lasts as long as the page
  }
  if (theme === "light" || theme === "dark") document.documentElement.dataset.theme = theme;
})();
