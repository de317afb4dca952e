// Draws every chart with the colors of the page, and redraws it if the color scheme changes between light and dark.
(function () {
  const dark = window.matchMedia("(prefers-color-scheme: dark)");
  const charts = Array.from(document.querySelectorAll(".chart"), (element) => ({
    element,
    figure: JSON.parse(element.nextElementSibling.textContent),
  }));

  function draw() {
    const style = getComputedStyle(document.documentElement);
    const color = (name) => style.getPropertyValue(name).trim();
    const axis = { gridcolor: color("--line"), linecolor: color("--line"), automargin: true };
    for (const { element, figure } of charts) {
      const layout = {
        ...figure.layout,
        font: { ...figure.layout.font, color: color("--muted"), family: getComputedStyle(document.body).fontFamily },
        hoverlabel: { bgcolor: color("--panel"), bordercolor: color("--line"), font: { color: color("--text") } },
        xaxis: { ...figure.layout.xaxis, ...axis },
        yaxis: { ...figure.layout.yaxis, ...axis },
        dragmode: false,
      };
      Plotly.react(element, figure.data, layout, { responsive: true, displayModeBar: false });
    }
  }

  draw();
  dark.addEventListener("change", draw);
})();
